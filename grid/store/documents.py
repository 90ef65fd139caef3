"""What the JSON documents of a store say: a model for each, through which every reading goes.

What is read back is checked like a stranger's: disks flip bits, copies are cut short, people edit.
A document that is not what its model says, or whose digest is not that of its content, is not used;
`read` raises a DocumentError that names it and says what is to be done. Keys that a model does not
know are passed over: a later release wrote them. `layout` says where each document lies.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from equigrid.grid.errors import DocumentError
from equigrid.grid.store.store import CONNECTIONS, Store
from equigrid.grid.text import safe, unwritable

log = logging.getLogger("equigrid.store")

Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Facts = dict[str, Annotated[int, Field(ge=0, le=2**63)] | Number | str | bool | None]


def _inside(name: str) -> str:
    """A name that leads to no other place: the store refuses it too, as a fault of who asks."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or unwritable(name):
        raise ValueError(f"{name!r:.100} is no name in a store")
    return name


Name = Annotated[str, AfterValidator(_inside)]
AGAIN = "a run that needs it makes it again"


class Document(BaseModel):
    """A document of a store. words: what it is; right: what is to be done about a wrong one."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)
    words: ClassVar[str]
    right: ClassVar[str] = AGAIN


D = TypeVar("D", bound=Document)


def read(store: Store, name: str, model: type[D]) -> D | None:
    """The document under `name`; None where there is none. Raises DocumentError, StoreError."""
    try:
        content = store.get_json(name)
        return None if content is None else model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
    except DocumentError as error:
        why = error.why
    text = f"store {store.uri}: {name} is not {model.words}: {why}; {model.right}"
    raise DocumentError(text, name=name, why=why)


def read_all(store: Store, names: list[str], model: type[D]) -> list[D | None]:
    """`readable` of many, several at a time: they are small, and reading them is waiting."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(lambda name: readable(store, name, model), names))


def readable(store: Store, name: str, model: type[D]) -> D | None:
    """`read`, for what can be done without: a wrong document is told, once, and counts as not
    there. Raises StoreError.
    """
    try:
        return read(store, name, model)
    except DocumentError as error:
        passed_over(str(error))
        return None


def passed_over(text: str) -> None:
    """Tells that something in a store was left out: in a line on standard error, once."""
    if text not in _told:
        _told.add(text)
        log.warning("equigrid: warning: %s", safe(" ".join(text.split())))


_told: set[str] = set()


# The store and its grids --------------------------------------------------------------------------


class RecordedSpec(Document):
    """A grid's spec, as it was last run, and the version of equigrid that wrote it (None: one that
    did not say so).
    """

    words: ClassVar = "the spec of a grid"
    right: ClassVar = "run the grid from its YAML file, which records it anew"

    name: str
    equigrid: str | None = None


class SourceRecord(Document):
    """What a source said of itself: see `equigrid.grid.datasets.sources.base.Source`."""

    words: ClassVar = "what a source said"

    name: str
    state: dict[str, Any]
    classes: list[str]
    allow_broken: Count
    local: bool
    class_ids: list[str]
    told: list[str]
    duplicates: str
    split_here: bool
    grouped: bool


class PlannedDataset(Document):
    words: ClassVar = "what was planned with"

    entry: str | dict[str, Any]
    key: str
    source: SourceRecord


class PlannedGenerator(Document):
    words: ClassVar = "what was planned with"

    entry: dict[str, Any]
    mapping: dict[str, Any]
    training: dict[str, Any]
    sampling: dict[str, Any]
    capacity: Count | None


class PlannedZeroShot(Document):
    words: ClassVar = "what was planned with"

    entry: dict[str, Any]
    payload: dict[str, Any]


class PlannedQuality(PlannedZeroShot):
    networks: dict[str, bool | str]


class PlannedClassifier(Document):
    words: ClassVar = "what was planned with"

    entry: dict[str, Any]
    how: dict[str, Any]
    normalisation: dict[str, Any]
    place: str
    told: str


class PlannedRecord(Document):
    """What planning learned of the world for a grid: `equigrid.grid.planning.recording`."""

    words: ClassVar = "what a grid was planned with"
    right: ClassVar = "its data are looked at anew, until a run records it"

    dataset: PlannedDataset
    generators: dict[str, PlannedGenerator]
    zero_shot: PlannedZeroShot | None
    quality: PlannedQuality | None
    classifiers: list[PlannedClassifier] = []


class RunRecord(Document):
    """What one run did: see `equigrid.grid.reporting.summary.Summary`."""

    words: ClassVar = "the record of a run"
    right: ClassVar = "it is left out; remove it"

    grid: str
    store: str
    jobs: dict[str, Count]
    cached: dict[str, Count] = {}
    failures: list[dict[str, Any]] = []
    blocked: Count = 0
    retries: Count = 0
    shard_loads: Count = 0
    shard_hits: Count = 0
    seconds: Seconds
    training_s: Seconds = 0
    trial_overhead_median_s: Number | None = None
    interrupted: bool = False
    taken_over: bool = False
    device_s: Seconds = 0
    budget_reached: bool = False
    ended_at: str


class CandidateRecord(Document):
    """A candidate of a search: see `equigrid.grid.jobs.candidate`. values: by dotted key; replicate
    0 is the search's own, others have fresh seeds. history: a mapping for each look.
    """

    words: ClassVar = "a candidate of a search"
    right: ClassVar = "the next search trains it again"

    study: str
    values: dict[str, Any]
    replicate: Count
    label: str
    status: str
    error: str | None
    history: list[dict[str, Number | None]]
    seconds: Seconds
    device: str
    versions: dict[str, str]
    started_at: str

    @model_validator(mode="after")
    def _looks_are_whole(self) -> Self:
        for look in self.history:
            if "value" not in look or not isinstance(look.get("progress"), float | int):
                raise ValueError(
                    "history: each look has a progress, which is a number, and a value"
                )
        return self


class LockOwner(Document):
    words: ClassVar = "the owner of a lock"

    run: str
    host: str
    pid: Count
    user: str
    started_at: str
    machine: str
    born: str


class LiveKind(Document):
    """How far the jobs of a kind are."""

    words: ClassVar = "progress"

    running: Count = 0
    images_per_s: Seconds | None = None
    left_s: Seconds | None = None


class LiveProgress(Document):
    """What a driver says of its run with a heartbeat."""

    words: ClassVar = "progress"

    kinds: dict[str, LiveKind] = {}
    device_s: Seconds = 0
    shard_hits: Count = 0
    shard_loads: Count = 0


class LockRecord(Document):
    """Who holds a grid's lock: see `equigrid.grid.store.lock`."""

    words: ClassVar = "a lock"
    right: ClassVar = "remove it if no driver runs the grid"

    owner: LockOwner
    beats: Count
    held_s: Seconds
    progress: LiveProgress | None = None


class FailureRecord(Document):
    """An attempt that failed, but for trials, whose attempts are rows."""

    words: ClassVar = "the record of a failure"
    right: ClassVar = "it is left out; remove it"

    error: str


class Generation(Document):
    """A generation of results: see `equigrid.grid.store.results`."""

    words: ClassVar = "the manifest of a table of results"
    right: ClassVar = "bring it back from a copy; without it, its rows are trained again"

    rows: Count
    replaces: list[str]
    written_at_s: Number


# Datasets -----------------------------------------------------------------------------------------


class ShardRecord(Document):
    """The manifest of a shard."""

    words: ClassVar = "the manifest of a shard"

    data: Name
    checksum: Hash
    n: Count


class DatasetShard(ShardRecord):
    """Of a dataset. places: of its first image in the split, and behind its last. told: see
    `equigrid.grid.datasets.sources.base.Told`.
    """

    places: Annotated[list[Count], Field(min_length=2, max_length=2)]
    told: tuple[int | None, int | None, Count, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _told_as_tuple(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("told"), list):
            return {**content, "told": tuple(content["told"])}
        return content


class Places(Document):
    """Images that are not among a dataset's shards, and why: [split, place in it, words]."""

    words: ClassVar = "a list of images that are left out"
    right: ClassVar = "remove it: the next run looks for them anew"

    places: list[tuple[str, Count, str]]

    @model_validator(mode="before")
    @classmethod
    def _as_before(cls, content: Any) -> Any:
        content = {"places": content} if isinstance(content, list) else content
        found = content.get("places") if isinstance(content, dict) else None
        if not isinstance(found, list):
            return content
        return {**content, "places": [tuple(p) if isinstance(p, list) else p for p in found]}


class ShapeRecord(Document):
    words: ClassVar = "the shape of a dataset"

    classes: Annotated[list[str], Field(min_length=1)]
    height: Annotated[int, Field(ge=1, le=2**16)]
    width: Annotated[int, Field(ge=1, le=2**16)]
    channels: Annotated[int, Field(ge=1, le=4)]
    train_counts: list[Count]
    test_counts: list[Count]
    val_counts: list[Count] = []

    @model_validator(mode="after")
    def _of_each_class(self) -> Self:
        for counts in (self.train_counts, self.test_counts, self.val_counts or self.classes):
            if len(counts) != len(self.classes):
                raise ValueError(f"{len(self.classes)} classes, and counts of {len(counts)}")
        return self


class ShardInList(ShardRecord):
    manifest: Annotated[str, Field(pattern=r"^datasets/[^/]+/[^/]+$")]


class LabelsRecord(Document):
    words: ClassVar = "where labels lie"

    data: Name
    checksum: Hash
    n: Count


class DatasetRecord(Document):
    """The manifest of an ingested set: see `equigrid.grid.datasets.catalogue.Dataset`."""

    words: ClassVar = "the manifest of a dataset"
    right: ClassVar = "the next run reads the dataset anew"

    name: str
    fingerprint: str
    shape: ShapeRecord
    train: Annotated[list[ShardInList], Field(min_length=1)]
    test: Annotated[list[ShardInList], Field(min_length=1)]
    val: list[ShardInList] = []
    labels: dict[str, LabelsRecord]
    broken: list[str]
    duplicates: dict[str, Count | dict[str, list[list[Count]]]]
    skipped: list[str]
    class_ids: list[str]
    told: list[str]
    repeated: list[Count]
    repeated_counts: list[Count]
    grouped: bool

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        for split in ("train", "test", "val"):
            refs, counts = getattr(self, split), getattr(self.shape, f"{split}_counts")
            n = sum(counts)
            labels = self.labels.get(split)
            if (labels.n if labels else 0) != n or sum(ref.n for ref in refs) != n:
                raise ValueError(
                    f"{split}: shards, labels and classes have other numbers of images"
                )
        return self

    @model_validator(mode="after")
    def _copies_are_of_its_images(self) -> Self:
        n_train = sum(self.shape.train_counts)
        if any(place >= n_train for place in self.repeated):
            raise ValueError(f"repeated: train has {n_train} images")
        if sum(self.repeated_counts) != len(self.repeated) or (
            len(self.repeated_counts) not in (0, len(self.shape.classes))
        ):
            raise ValueError("repeated_counts: is not how many images of each class are repeated")
        for name, found in self.duplicates.items():
            if isinstance(found, int) != (name != "first"):
                raise ValueError(f"duplicates: {name!r:.40} is {found!r:.40}")
            pair = name.split("_")
            if len(pair) > 1 and found and not (len(pair) == 2 and set(pair) <= set(self.labels)):
                raise ValueError(f"duplicates: {name!r:.40} names no two of its splits")
        return self


# Outputs of jobs ----------------------------------------------------------------------------------


class Manifest(Document):
    """Any manifest, for who asks only which object it names."""

    words: ClassVar = "a manifest"


class JobOutput(Document):
    """What every kind of job may say: the energy that it took, where that was counted."""

    words: ClassVar = "what a job says of its output"

    energy_kwh: Number | None = None
    co2_kg: Number | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.energy_kwh is None) != (self.co2_kg is None):
            raise ValueError("energy_kwh and co2_kg are there together, or neither is")
        return self


class JobRecord(JobOutput):
    """What every manifest says from which its kind's cost is estimated."""

    words: ClassVar = "the manifest of a job"

    seconds: Seconds
    device: str


class WeightsRecord(JobOutput):
    """The manifest of a training. weights: where they lie."""

    words: ClassVar = "the manifest of trained weights"

    weights: Name
    checksum: Hash


class TrainingRecord(Document):
    """What a generator's training took."""

    words: ClassVar = "the manifest of a generator"

    train_seconds: Seconds
    world_size: Annotated[int, Field(ge=1, le=2**20)]
    device: str
    values: Count


class GeneratorRecord(WeightsRecord):
    words: ClassVar = "the manifest of a generator"

    config: dict[str, Any]
    world_size: Annotated[int, Field(ge=1, le=2**20)]
    train_seconds: Seconds
    values: Count
    n_images: Count
    cost: Facts
    device: str
    peak_device_bytes: Count | None
    versions: dict[str, str]


class ReferenceRecord(WeightsRecord):
    words: ClassVar = "the manifest of a reference classifier"

    model: str
    input_size: Annotated[list[Count], Field(min_length=2, max_length=2)]
    pretrained: dict[str, Any] | None = None
    seconds: Seconds
    device: str


class SamplingRecord(Document):
    """What a pool's shard took."""

    words: ClassVar = "the manifest of a pool's shard"

    seconds: Seconds
    seconds_per_image: Seconds
    device: str
    peak_device_bytes: Count | None
    cost: Facts


class PoolShard(ShardRecord, JobOutput):
    """Of a pool; what it took. cost: `cost_facts` of its sampling. columns: where what is said of
    each image lies. real: how many of its images each split of the dataset has too, where somebody
    brought them.
    """

    words: ClassVar = "the manifest of a pool's shard"

    seconds: Seconds
    seconds_per_image: Seconds
    device: str
    peak_device_bytes: Count | None
    generator: str
    kind: str
    cost: Facts
    columns: Name | None = None
    real: dict[str, Count] = {}


class QualityRecord(JobOutput):
    """What was measured of a pool: the columns of `equigrid.generators.quality.measure`."""

    words: ClassVar = "what was measured of a pool"

    pool: str
    seconds: Seconds
    device: str
    n_images: Count | None = None
    n_real: Count | None = None
    fid: Number | None = None
    inception_score: Number | None = None
    inception_score_std: Number | None = None
    diversity: Number | None = None
    diversity_real: Number | None = None
    feature_distance: Number | None = None
    feature_diversity: Number | None = None
    feature_diversity_real: Number | None = None
    neighbour_distance: Number | None = None
    neighbour_distance_real: Number | None = None
    memorised: Number | None = None
    reconstruction_psnr_db: Number | None = None
    reconstruction_fid: Number | None = None
    reconstruction_feature_distance: Number | None = None
    extractor: str | None = None
    fd: Number | None = None
    fd_infinity: Number | None = None
    kid: Number | None = None
    kid_se: Number | None = None
    precision: Number | None = None
    recall: Number | None = None
    density: Number | None = None
    coverage: Number | None = None
    nearer_than_held_out: Number | None = None
    copying_z: Number | None = None
    near_copies: Number | None = None
    n_held_out: Count | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _intervals_are_numbers(self) -> Self:
        """Each measure's ends beside it, <name>_low and <name>_high, are numbers, in order."""
        for name, value in (self.model_extra or {}).items():
            if name.endswith(("_low", "_high")) and not isinstance(value, float | int | None):
                raise ValueError(f"{name} is {value!r}, no number")
        return self


Percent = Annotated[float, Field(ge=0, le=100)]


class EmbeddingRecord(Document):
    """Coordinates of images in two networks' features; the first half are the real ones'."""

    words: ClassVar = "a t-SNE"

    n: Count
    perplexity: Number
    labels: list[Count]
    domain: list[Annotated[list[Number], Field(min_length=2, max_length=2)]]
    ordinary: list[Annotated[list[Number], Field(min_length=2, max_length=2)]]

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        if not len(self.labels) == len(self.domain) == len(self.ordinary) == 2 * self.n:
            raise ValueError(f"n is {self.n}, and there are not twice as many points")
        return self


class DomainGapRecord(JobOutput):
    """How well a classifier tells a pool from real images."""

    words: ClassVar = "the domain gap of a pool"

    pool: str
    seconds: Seconds
    device: str
    accuracy: Percent
    low: Percent
    high: Percent
    real: Percent
    synthetic: Percent
    per_class: list[Percent | None]
    n_train: Count
    n_test: Count
    patch_px: Count | None
    tsne: EmbeddingRecord | None = None


class ZeroShotRecord(Document):
    """All accuracies of a zero-shot trial."""

    words: ClassVar = "the accuracies of a zero-shot trial"
    right: ClassVar = "it is left out; remove it"

    among_unseen: Percent
    among_all: Percent
    seen_among_all: Percent | None
    per_class: list[Percent | None] = []
    n_train: Count | None = None
    n_test: Count | None = None
    temperature: Number | None = None


class ArtefactRecord(Document):
    """Where something lies that a training keeps between its attempts."""

    words: ClassVar = "the manifest of something that a training keeps"

    data: Name
    checksum: Hash
