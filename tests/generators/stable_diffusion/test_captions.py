"""Captions by a language model: what it is asked, what is made of its answer; a small one of random
weights.
"""

import json
import subprocess
from collections import Counter

import numpy as np
import pytest
import torch

from equigrid.generators.common import pools
from equigrid.generators.registry import config
from equigrid.generators.stable_diffusion import candidates, captions, words
from equigrid.generators.stable_diffusion.captions import Captioner
from equigrid.generators.stable_diffusion.config import Captions

NAMES = ("owl", "sea lion")
CPU = torch.device("cpu")


def captioner(language_model, seed=3, **changes):
    own = {"max_new_tokens": 12, "examples_per_caption": 2, **changes}
    return Captioner(Captions(language_model=language_model, **own), NAMES, seed=seed, device=CPU)


class TestAsked:
    def test_examples_of_the_template_then_the_class(self, language_model):
        own, data = captioner(language_model), words.read()
        for number, template in enumerate(["c", "c,bg", "c,rel", "c"]):
            assert own.template(number, 0) == template
            _, *examples, last = own.prompt(1, number, 0).splitlines()
            assert len(examples) == 2
            for line in examples:
                assert tuple(line.split(" => ")) in {
                    tuple(pair) for pair in data.examples[template]
                }
            name, *second = last.removesuffix(" =>").split(", ")
            assert name == "sea lion"
            assert (
                second == []
                if template == "c"
                else second[0] in {"c,bg": data.backgrounds, "c,rel": data.relations}[template]
            )

    def test_draws_vary_with_class_number_attempt_and_seed(self, language_model):
        own, other = captioner(language_model), captioner(language_model, seed=4)
        asked = [
            own.prompt(0, 1, 0),
            own.prompt(0, 4, 0),
            own.prompt(0, 1, 3),
            other.prompt(0, 1, 0),
        ]
        assert len(set(asked)) == 4
        backgrounds = Counter(
            own.prompt(0, 3 * k + 1, 0).rpartition("owl, ")[2] for k in range(300)
        )
        assert len(backgrounds) > 55  # of 60
        assert max(backgrounds.values()) < 20

    def test_our_data(self):
        data = words.read()
        assert set(data.examples) == set(words.TEMPLATES)
        for template, pairs in data.examples.items():
            assert len(pairs) >= 8
            for given, caption in pairs:
                name, *second = given.split(", ")
                assert len(second) == (0 if template == "c" else 1)
                assert (
                    name in caption.lower()
                    or template == "c,rel"
                    or name.split()[-1] in caption.lower()
                )
                assert "\n" not in caption and "=>" not in caption
        for values in (data.backgrounds, data.relations):
            assert len(set(values)) == len(values) >= 30


class TestAnswered:
    def test_captions_are_functions_of_their_place(self, language_model):
        own = captioner(language_model)
        state = torch.get_rng_state()
        first = [own.caption(0, k) for k in range(4)] + [
            own.caption(1, 0),
            own.caption(0, 0, attempt=1),
        ]
        assert torch.equal(state, torch.get_rng_state())
        assert len(set(first)) == 6
        assert all(text and text == text.strip() and "\n" not in text for text in first)
        captions._completed.cache_clear()
        torch.manual_seed(7)
        again = captioner(language_model)
        assert [
            again.caption(0, 0, attempt=1),
            again.caption(1, 0),
            *(again.caption(0, k) for k in (3, 2, 1, 0)),
        ] == first[::-1]
        assert captioner(language_model, seed=4).caption(0, 0) != first[0]

    def test_a_cold_model_writes_the_likeliest_characters(self, language_model):
        """Against greedy decoding written out: the settings reach the model, and the prompt is not
        repeated.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        own = Captions(language_model=language_model, temperature=1e-4, max_new_tokens=9)
        have = captions._completed(own, "cpu", "owl =>", 1)
        tokenizer = AutoTokenizer.from_pretrained(language_model)
        model = AutoModelForCausalLM.from_pretrained(language_model)
        tokens = tokenizer("owl =>", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            for _ in range(9):
                tokens = torch.cat([tokens, model(tokens).logits[:, -1].argmax(1)[None]], dim=1)
        want = tokenizer.decode(tokens[0, 6:]).split("\n")[0].strip()
        assert have == want and want

    def test_top_p(self, language_model):
        own = Captions(language_model=language_model, top_p=1e-6, max_new_tokens=9)
        assert captions._completed(own, "cpu", "owl =>", 1) == captions._completed(
            own, "cpu", "owl =>", 2
        )

    def test_a_model_that_writes_nothing(self, language_model, monkeypatch):
        seeds, answers = [], iter(["", " \"' ", "An owl."])
        monkeypatch.setattr(
            captions, "_completed", lambda *given: seeds.append(given[3]) or next(answers, "")
        )
        assert captioner(language_model).caption(0, 0) == "An owl."
        assert len(set(seeds)) == 3
        with pytest.raises(ValueError, match="writes nothing for class 'sea lion' in 8 draws"):
            captioner(language_model).caption(1, 0)


class TestPools:
    def test_five_images_per_caption(self, language_model, monkeypatch):
        """The prompts of a pool's candidates, without its pipeline."""
        monkeypatch.setattr(
            candidates.models, "pipeline", lambda *_: type("Pipeline", (), {"vae_scale_factor": 8})
        )
        given = {
            "captions": {"language_model": language_model, "max_new_tokens": 8},
            "clip_filter": None,
        }
        chosen = config({"kind": "stable-diffusion", "preset": "sd3", **given})
        maker = candidates.Candidates(chosen, NAMES, seed=3, device=CPU)
        labels = pools.labels(3, 0, 24, 2)
        rows = [maker._prompt(candidates.Wanted(i, int(c), 0)) for i, c in enumerate(labels)]
        for label in (0, 1):
            mine = [row for row, c in zip(rows, labels) if c == label]
            assert [row["caption"] for row in mine] == [0] * 5 + [1] * 5 + [2] * 2
            assert [row["template"] for row in mine[::5]] == ["c", "c,bg", "c,rel"]
            assert len({row["prompt"] for row in mine}) == 3
            assert mine[7]["prompt"] == maker.captioner.caption(label, 1)
        # The candidate after a refused one has another caption, with which a bad caption is left
        # behind.
        assert maker._prompt(candidates.Wanted(0, int(labels[0]), 1))["prompt"] != rows[0]["prompt"]


class TestFiles:
    def test_own_lists_take_the_place_of_ours(self, language_model, tmp_path):
        (tmp_path / "bg.txt").write_text("a\u00a0lake\n\n  the moon \n")
        (tmp_path / "examples.json").write_text(
            json.dumps({name: [["emu", f"Emu {name}."]] for name in words.TEMPLATES})
        )
        files = {
            "backgrounds": str(tmp_path / "bg.txt"),
            "examples": str(tmp_path / "examples.json"),
        }
        own = captioner(language_model, **files)
        asked = {own.prompt(0, 3 * k + 1, 0).splitlines()[-1] for k in range(20)}
        assert asked == {"owl, a\u00a0lake =>", "owl, the moon =>"}
        assert own.prompt(0, 1, 0).splitlines()[1] == "emu => Emu c,bg."
        payload = own.config.payload()
        assert str(tmp_path) not in json.dumps(payload)
        assert payload != captioner(language_model).config.payload()
        (tmp_path / "bg.txt").write_text("a lake\nthe moon\n")
        assert own.config.payload()["words_sha256"] != payload["words_sha256"]

    @pytest.mark.parametrize(
        ("key", "content", "message"),
        [
            ("backgrounds", None, "captions.backgrounds: there is no file"),
            ("relations", " \n", "captions.relations: the file .* holds no line of text"),
            (
                "examples",
                "[1]",
                r"captions.examples: .* is not JSON of the form \{\"c\": \[\[given, caption\]",
            ),
            ("examples", '{"c": [["a", "b"]], "c,bg": [], "c,rel": []}', "is not JSON of the form"),
            ("examples", "{", "is not JSON of the form"),
        ],
    )
    def test_files_that_cannot_serve(self, tmp_path, key, content, message):
        path = tmp_path / "file"
        if content is not None:
            path.write_text(content)
        given = {"captions": {"language_model": "some/model", key: str(path)}}
        chosen = config({"kind": "stable-diffusion", "preset": "sd3", **given})
        with pytest.raises(ValueError, match=message):
            chosen.check(32, 32, 3, 2, 0, class_names=NAMES)

    def test_no_language_model(self, language_model, tmp_path):
        folder = tmp_path / "empty"
        subprocess.run(["cp", "-r", language_model, folder], check=True)
        (folder / "model.safetensors").unlink()
        captions.models.release()
        with pytest.raises(
            ValueError,
            match="captions.language_model: .* it must hold config.json, a tokenizer and safetensors",
        ):
            captioner(str(folder)).caption(0, 0)

    def test_templates(self):
        with pytest.raises(ValueError, match="one or more of 'c', 'c,bg', 'c,rel', each once"):
            Captions(language_model="m", templates=("c", "c"))


def test_the_order_of_labels_is_known():
    """Captions count on every run of `classes` images holding each class once."""
    assert np.array_equal(
        np.sort(pools.labels(9, 0, 40, 8).reshape(5, 8)), np.tile(np.arange(8), (5, 1))
    )
