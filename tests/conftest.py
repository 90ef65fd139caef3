"""The order of the tests; and what several rooms' tests load through the real loading code: small
pre-trained parts of random weights, written to disk as the released ones are laid out, a hub
that does not answer, and one that does.
"""

import base64
import contextlib
import hashlib
import importlib.resources
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import settings

# First what a new machine may lack, and what our own imports need.
FIRST = ("tests/grid/test_machine.py", "tests/test_architecture.py")
# Files with tests that use one of these come last: they run grids, start hosts, install.
LAST = {"finished_mini", "start", "hosts", "cluster", "installed", "build_environment"}
# Files of more than a minute, the longest first: one that began last would run alone at the end.
LONGEST = (
    "tests/cluster/test_cluster_ray_up.py",
    "tests/grid/running/test_driver.py",
    "tests/grid/tuning/test_search.py",
    "tests/grid/store/test_faults.py",
    "tests/packaging/test_users_own.py",
    "tests/grid/api/test_run.py",
    "tests/examples/test_notebooks.py",
    "tests/grid/running/test_drills.py",
    "tests/grid/cli/test_exit_codes.py",
    "tests/packaging/test_installs.py",
    "tests/grid/running/test_pretrained_grid.py",
    "tests/grid/running/test_together.py",
)
SIDE = 16  # of the images that the small pipelines make


# In what order tests run, and what is said of those that do not -----------------------------------


def pytest_collection_modifyitems(items):
    """Whole files in order, since pytest-xdist hands out whole files; no GPU, no GPU tests."""
    last = {item.path for item in items if LAST & set(item.fixturenames)}

    def rank(item: pytest.Item) -> tuple[int, int]:
        file = item.nodeid.split("::")[0]
        if file in FIRST:
            return 0, FIRST.index(file)
        return 1 + (item.path in last), LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=rank)
    for_gpus = [item for item in items if item.get_closest_marker("gpu")]
    if for_gpus and not _has_gpu():
        for item in for_gpus:
            item.add_marker(pytest.mark.skip("needs a CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_configure(config):
    config.pluginmanager.register(Telling(config))
    # The same examples in every run, so that a change fails by what it changed; others are looked
    # for with EQUIGRID_EXAMPLES=random.
    settings.register_profile("same", derandomize=True)
    if os.environ.get("EQUIGRID_EXAMPLES") != "random":
        settings.load_profile("same")


class Telling:
    """Tells of a failure when it happens, not at the end alone; and what was left out, and why."""

    def __init__(self, config: pytest.Config):
        self.config, self.left_out = config, Counter()
        self.reasons = dict(
            line.split(": ", 1) for line in config.getini("markers") if ": " in line
        )

    def pytest_deselected(self, items):
        for item in items:
            names = [name for name in self.reasons if item.get_closest_marker(name)]
            self.left_out.update(names[:1])

    def pytest_sessionfinish(self):
        if hasattr(self.config, "workeroutput"):  # a process of pytest-xdist
            self.config.workeroutput["left_out"] = dict(self.left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Each process has collected all tests, so each says the same."""
        self.left_out = Counter(getattr(node, "workeroutput", {}).get("left_out", self.left_out))

    def pytest_runtest_logreport(self, report):
        self._tell(report)

    def pytest_collectreport(self, report):
        self._tell(report)

    def _tell(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Its name and why in one line, and then the end of all that there is to say of it."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal:
            terminal.write_line(f"\nFAILED {report.nodeid}: {_reason(report)}", red=True, bold=True)
            terminal.write_line(report.longreprtext[-2_000:], red=True)
            terminal.flush()  # into a file or a pipe too

    def pytest_terminal_summary(self, terminalreporter):
        for name, number in self.left_out.items():
            terminalreporter.write_line(f"left out: {number} {name} ({self.reasons[name]})")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The first line of what was raised; of a file that cannot be imported there is text alone, in
    which pytest marks it.
    """
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = [line for line in report.longreprtext.splitlines() if line.strip()]
    marked = [line[1:] for line in lines if re.match(r"E\s+\S", line)]
    said = crash.message.splitlines() if crash else marked or lines[-1:]
    return said[0].strip() if said else "no reason given"


# A hub of our own --------------------------------------------------------------------------------

HUB_COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """The part of a hub's interface that downloads from a model use."""

    root: Path
    asked: list[str]
    repository = "lab/networks"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        api = f"/api/models/{self.repository}"
        if path.startswith(f"{api}/revision/"):
            if path.rpartition("/")[2] not in ("main", "v2", HUB_COMMIT):
                return self._json({"error": "Invalid rev id"}, 404, "RevisionNotFound")
            files = [p for p in sorted(self.root.rglob("*")) if p.is_file()]
            names = [str(p.relative_to(self.root)) for p in files]
            siblings = [{"rfilename": name} for name in names]
            return self._json({"id": self.repository, "sha": HUB_COMMIT, "siblings": siblings})
        if path.startswith(f"{api}/tree/"):
            files = [p for p in sorted(self.root.rglob("*")) if p.is_file()]
            return self._json(
                [
                    {"type": "file", "oid": "2" * 40, "size": p.stat().st_size,
                     "path": str(p.relative_to(self.root))}
                    for p in files
                ]
            )  # fmt: skip
        inside = path.removeprefix(f"/{self.repository}/resolve/").partition("/")[2]
        if path.startswith(f"/{self.repository}/resolve/") and (self.root / inside).is_file():
            data = (self.root / inside).read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            return self._answer(data, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": HUB_COMMIT})
        return self._json({"error": "Entry not found"}, 404, "EntryNotFound")

    do_HEAD = do_GET

    def _json(self, content: object, code: int = 200, error: str = "") -> None:
        headers = {"Content-Type": "application/json"}
        headers |= {"X-Error-Code": error, "X-Repo-Commit": HUB_COMMIT} if error else {}
        self._answer(json.dumps(content).encode(), code, headers)

    def _answer(self, data: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    kind = type("OwnHub", (Hub,), {"root": tmp_path / "repository", "asked": []})
    kind.root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield kind
    server.shutdown()
    server.server_close()


# Small parts of random weights --------------------------------------------------------------------


def clip_tokenizer():
    """One token a character: an owl is o, w, l</w>."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=48
    )


def text_sizes(tokenizer):
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 48,
        "projection_dim": 16,
        **sizes,
        **special,
    }


def autoencoder(**extra):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=SIDE, **extra,
    )  # fmt: skip


@pytest.fixture(scope="session")
def sd(tmp_path_factory):
    """A pipeline laid out as Stable Diffusion 1 and 2, with a safety checker that must not be
    loaded.
    """
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("sd"), clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=CLIPTextModel(CLIPTextConfig(**text_sizes(tokenizer))), tokenizer=tokenizer,
        unet=unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
    ).save_pretrained(folder)  # fmt: skip
    index = folder / "model_index.json"
    parts = json.loads(index.read_text()) | {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True,
    }  # fmt: skip
    index.write_text(json.dumps(parts))
    return str(folder)


@pytest.fixture(scope="session")
def sd3(tmp_path_factory):
    """A pipeline laid out as Stable Diffusion 3, with its three text encoders."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("sd3"), clip_tokenizer()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"▁{chr(c)}", -3.0) for c in range(97, 123)),
              *((chr(c), -2.0) for c in range(97, 123))]  # fmt: skip
    t5 = T5Config(vocab_size=160, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    encoders = [
        CLIPTextModelWithProjection(CLIPTextConfig(**text_sizes(tokenizer))) for _ in range(2)
    ]
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 2, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=32, pooled_projection_dim=32,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=encoders[0], tokenizer=tokenizer, text_encoder_2=encoders[1], tokenizer_2=clip_tokenizer(),
        text_encoder_3=T5EncoderModel(t5), tokenizer_3=T5Tokenizer(vocab=pieces, extra_ids=0),
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A CLIP model and its processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("clip"), clip_tokenizer()
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision = {"image_size": SIDE, "patch_size": 4, "projection_dim": 16, **sizes}
    CLIPModel(
        CLIPConfig(text_config=text_sizes(tokenizer), vision_config=vision, projection_dim=16)
    ).save_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    CLIPProcessor(processor, tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """A folder with a GPT-2 of two layers that writes printable characters, one a token."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders
    from tokenizers import models as parts
    from tokenizers import pre_tokenizers as cut
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language-model")
    characters = ["\n", *(chr(c) for c in range(32, 127)), "<|end|>"]
    own = Tokenizer(parts.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="?"))
    own.pre_tokenizer, own.decoder = cut.Split(Regex("[\\s\\S]"), "isolated"), decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"n_positions": 1024, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(characters), **sizes, bos_token_id=96, eos_token_id=96)
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder with a BERT of random weights, 16 wide, and its tokenizer, as the hub's are laid
    out.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    letters = [chr(c) for c in range(97, 123)]
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ".",
        *letters,
        *(f"##{c}" for c in letters),
    ]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = BertModel(BertConfig(vocab_size=len(words), **sizes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts a folder into the hub's cache and returns its hub id; the hub takes connections and
    never answers.
    """
    from huggingface_hub import constants, hf_api

    hub = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{hub.getsockname()[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)

    def put(folder: str) -> str:
        name, commit = Path(folder).name, 40 * "a"
        place = tmp_path / f"models--cached--{name}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        return f"cached/{name}"

    with hub:
        yield put


# A real browser -----------------------------------------------------------------------------------


class Browser:
    """One session of headless chromium."""

    def __init__(self, profile, environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["chromedriver", f"--port={self.port}"]
        self.driver = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--user-data-dir={profile}"]  # fmt: skip
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = ""
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                answer = self.call("POST", "session", {"capabilities": {"alwaysMatch": wanted}})
                self.session = f"session/{answer['sessionId']}/"
                return
            time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/{path}"
        request = urllib.request.Request(
            url, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)["value"]

    def run(self, script):
        return self.call("POST", self.session + "execute/sync", {"script": script, "args": []})

    def devtools(self, command, **params):
        body = {"cmd": command, "params": params}
        return self.call("POST", self.session + "goog/cdp/execute", body)

    def open_only(self, url, width, height=900, *, dark=False, media=""):
        # A page that is left must not speak in the next one's name.
        self.call("POST", self.session + "url", {"url": "about:blank"})
        self.errors()
        # A window is never narrower than 500 pixels; a page's viewport may be.
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=False)  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", media=media, features=[theme])
        self.call("POST", self.session + "url", {"url": url})

    def open(self, url, width, height=900, **how):
        """A report, with the figures that can be seen."""
        self.open_only(url, width, height, **how)
        self.wait_drawn()

    def wait(self, condition, timeout_s=60.0):
        """Until a script's word is true; returns what it said."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if found := self.run(f"return {condition}"):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{condition} is not so after {timeout_s} s: {self.errors()}")

    def wait_drawn(self):
        """Until every figure that can be seen is drawn."""
        self.wait('document.documentElement.dataset.drawn === "yes"')

    def unfold(self):
        """Opens all that is folded, and waits for its figures."""
        self.run(
            "document.documentElement.dataset.drawn = 'no';"
            "for (const fold of document.querySelectorAll('details')) fold.open = true;"
            "dispatchEvent(new Event('beforeprint'));"
        )
        self.run("equigrid.page.draw();")
        self.wait_drawn()

    def violations(self):
        """What axe-core finds against WCAG 2.1 A and AA in the page as it is."""
        script = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text()
        self.run(script)
        self.run(
            "window.found = null;"
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
            ".then((r) => { window.found = r.violations.map("
            "(v) => [v.id, v.nodes.map((n) => n.html.slice(0, 200) + n.failureSummary)]); });"
        )
        self.wait("window.found !== null")
        return self.run("return window.found")

    def errors(self):
        logs = self.call("POST", self.session + "se/log", {"type": "browser"})
        return [entry["message"] for entry in logs if entry["level"] in ("SEVERE", "WARNING")]

    def press(self, key):
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        body = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        self.call("POST", self.session + "actions", body)

    def screenshot(self):
        return base64.b64decode(self.call("GET", self.session + "screenshot"))

    def close(self):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            self.call("DELETE", self.session.rstrip("/"))
        self.driver.terminate()
        self.driver.wait(timeout=20)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless chromium, by WebDriver's protocol to chromedriver; skips where they are missing."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium is not installed")
    home = tmp_path_factory.mktemp("home")
    found = Browser(tmp_path_factory.mktemp("profile"), {**os.environ, "HOME": str(home)})
    yield found
    found.close()
