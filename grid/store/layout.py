"""What lies where in a store. No other module spells a name in one.

datasets/SHARDS_KEY/SPLIT-NNNNN…       shards of a dataset; broken.json, copies.json: not among them
datasets/KEY/dataset.json              an ingested source, and the labels of its splits
generators/ID/  references/ID/         manifest.json, weights, log, sheets, checkpoints …
pools/POOL/NNNNN.json                  a pool's shard; its images and columns beside it
quality/ID.json  domain/ID.json        what was measured of a pool
zero-shot/ID.json                      all accuracies of a zero-shot trial
checkpoints/ID/                        of a job that has no folder of its own
statistics/ID…                         what several jobs would measure anew
failures/ID/ATTEMPT.json               attempts that failed, but for trials
results/parts/  results/tables/        the trials' rows: see `results`
tuning/STUDY/ID.json                   a candidate of a search: `equigrid tune`
tuning/STUDY/checkpoints/ID/           of a candidate that is being trained
grids/GRID/                            spec.json, planned.json, lock.json, runs/, analysis/
check                                  what `Store.check` writes
store.json                             the format of the store, and who gave it that
"""

import re
from dataclasses import dataclass

TUNING = "tuning"
CHECK, FORMAT = "check", "store.json"
DATASETS, CHECKPOINTS, FAILURES, GRIDS = "datasets", "checkpoints", "failures", "grids"
PARTS, TABLES = "results/parts", "results/tables"
MANIFEST_ENDING = ".json"
# By these parts of their names objects of one purpose are known among those of one job.
WEIGHTS, SHARD_DATA, SHARD_COLUMNS = "/weights-", ".safetensors", ".parquet"


# Outputs of jobs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """Outputs that are a file each: `ROOT/ID.json`, and what belongs to it beside it."""

    root: str

    def manifest(self, job_id: str) -> str:
        """What makes the output of a job visible, written last."""
        return f"{self.root}/{job_id}{MANIFEST_ENDING}"

    def owner(self, name: str) -> str:
        """The id of the job that an object below the root belongs to."""
        return name.removeprefix(f"{self.root}/").partition(".")[0]

    def is_manifest(self, name: str) -> bool:
        return name == self.manifest(self.owner(name))

    def is_for_training(self, name: str) -> bool:
        """Whether an object is of no use once the job is done."""
        return False

    def checkpoints(self, job_id: str) -> str:
        """The folder of a training's checkpoints."""
        return checkpoints(job_id)


@dataclass(frozen=True)
class Shards(Files):
    """Outputs of several files each: `ROOT/POOL/NNNNN.json`, `ROOT/POOL/NNNNN-….safetensors`."""

    def owner(self, name: str) -> str:
        pool, _, file = name.removeprefix(f"{self.root}/").partition("/")
        return f"{pool}/{re.split('[-.]', file)[0]}"

    def pool(self, pool_id: str) -> str:
        """The folder of a pool's shards."""
        return f"{self.root}/{pool_id}"

    @staticmethod
    def job_id(pool_id: str, index: int) -> str:
        """The id of the job that makes a shard of a pool."""
        return f"{pool_id}/{index:05d}"


@dataclass(frozen=True)
class Folders(Files):
    """Outputs that are a folder each: `ROOT/ID/manifest.json`, and all that belongs to it."""

    def manifest(self, job_id: str) -> str:
        return f"{self.root}/{job_id}/manifest.json"

    def owner(self, name: str) -> str:
        return name.split("/")[1]

    def folder(self, job_id: str) -> str:
        return f"{self.root}/{job_id}"

    def checkpoints(self, job_id: str) -> str:
        return f"{self.root}/{job_id}/checkpoints"

    def artefacts(self, job_id: str) -> str:
        """The folder of what a training keeps between its attempts."""
        return f"{self.root}/{job_id}/artefacts"

    def is_for_training(self, name: str) -> bool:
        return name.split("/")[2:3] in (["checkpoints"], ["artefacts"])

    def weights(self, job_id: str, attempt: str) -> str:
        return f"{self.root}/{job_id}{WEIGHTS}{attempt}.safetensors"

    def log(self, job_id: str, attempt: str) -> str:
        return f"{self.root}/{job_id}/log-{attempt}.parquet"

    def sheet(self, job_id: str, step: int) -> str:
        """A picture of what a generator made after so many steps."""
        return f"{self.root}/{job_id}/sheets/{step:08d}.png"


GENERATORS = Folders("generators")
REFERENCE_CLASSIFIERS = Folders("references")
POOLS = Shards("pools")
QUALITY = Files("quality")
DOMAIN_GAPS = Files("domain")
ZERO_SHOT = Files("zero-shot")


def is_manifest(name: str) -> bool:
    """Whether an object makes others visible."""
    return name.endswith(MANIFEST_ENDING)


def shard_data(manifest: str, checksum: str) -> str:
    """The images and labels of a shard, of a dataset or of a pool."""
    return f"{manifest.removesuffix(MANIFEST_ENDING)}-{checksum[:12]}{SHARD_DATA}"


def shard_columns(manifest: str, attempt: str) -> str:
    """What a generator says of each image of a shard."""
    return f"{manifest.removesuffix(MANIFEST_ENDING)}-{attempt}{SHARD_COLUMNS}"


def checkpoints(job_id: str) -> str:
    """The folder of checkpoints of a job that has no folder of its own."""
    return f"{CHECKPOINTS}/{job_id}"


def neighbours_picture(job_id: str) -> str:
    """A pool's first images, each above the training image that it is nearest to."""
    return f"{QUALITY.root}/{job_id}.png"


def checkpointed_job(name: str) -> str:
    """The id of the job that an object below CHECKPOINTS is of."""
    return name.split("/")[1]


def statistics(content_id: str, ending: str) -> str:
    return f"statistics/{content_id}{ending}"


def artefact(folder: str, name: str, checksum: str) -> str:
    """The data of something that a training keeps; `artefact_manifest` names it."""
    return f"{folder}/{name}-{checksum[:12]}.safetensors"


def artefact_manifest(folder: str, name: str) -> str:
    return f"{folder}/{name}{MANIFEST_ENDING}"


def artefact_name(folder: str, name: str) -> str | None:
    """The name of what an object in the folder is the manifest of; None for its data."""
    inner = name.removeprefix(f"{folder}/")
    return inner.removesuffix(MANIFEST_ENDING) if inner.endswith(MANIFEST_ENDING) else None


def checkpoint(folder: str, step: int, attempt: str, digest: str) -> str:
    return f"{folder}/{step:010d}-{attempt}-{digest}.pt"


def is_checkpoint(name: str) -> bool:
    return name.endswith(".pt")


def checkpoint_digest(name: str) -> str:
    return name.rpartition("-")[2].removesuffix(".pt")


def failure(job_id: str, attempt: str) -> str:
    return f"{FAILURES}/{job_id}/{attempt}.json"


def is_failure(name: str) -> bool:
    return re.fullmatch(rf"{FAILURES}/.+/[^/]+\.json", name) is not None


def failed_job(name: str) -> str:
    """The id of the job that a failure is of; a shard's has a `/` in it."""
    return name.removeprefix(f"{FAILURES}/").rpartition("/")[0]


# Datasets -----------------------------------------------------------------------------------------


def dataset(key: str) -> str:
    """The manifest of an ingested source."""
    return f"{DATASETS}/{key}/dataset.json"


def dataset_folder(name: str) -> str:
    """The part of a dataset's object's name that tells datasets apart: one of its two keys."""
    return name.split("/")[1]


def is_dataset(name: str) -> bool:
    return name.startswith(f"{DATASETS}/")


def is_dataset_manifest(name: str) -> bool:
    return re.fullmatch(rf"{DATASETS}/[^/]+/dataset\.json", name) is not None


def dataset_labels(key: str, split: str, checksum: str) -> str:
    return f"{DATASETS}/{key}/labels-{split}-{checksum[:12]}.safetensors"


def dataset_shard(shards_key: str, split: str, index: int) -> str:
    """The manifest of a shard of a split."""
    return f"{DATASETS}/{shards_key}/{split}-{index:05d}.json"


def split_of(manifest: str) -> str:
    """The split of a dataset's shard; for a pool's, its number."""
    return manifest.rpartition("/")[2].partition("-")[0]


def broken_images(shards_key: str) -> str:
    return f"{DATASETS}/{shards_key}/broken.json"


def copies(shards_key: str) -> str:
    return f"{DATASETS}/{shards_key}/copies.json"


# Results ------------------------------------------------------------------------------------------


def result_part(trial_id: str, attempt: str) -> str:
    return f"{PARTS}/{trial_id}-{attempt}.parquet"


def is_result_part(name: str) -> bool:
    """Whether it is a part; an earlier release had folders of them."""
    return name.startswith(f"{PARTS}/") and name.endswith(".parquet")


def generation(number: int, attempt: str) -> str:
    """A generation of results: `generation_rows` and `generation_manifest` name its objects."""
    return f"{TABLES}/{number:08d}-{attempt}"


def generation_number(name: str) -> int:
    return int(name.rpartition("/")[2].partition("-")[0])


def generation_rows(generation: str) -> str:
    return f"{generation}.parquet"


def generation_manifest(generation: str) -> str:
    return f"{generation}{MANIFEST_ENDING}"


def is_generation_manifest(name: str) -> bool:
    return re.fullmatch(rf"{TABLES}/\d{{8}}-[^/]+{MANIFEST_ENDING}", name) is not None


def generation_of(name: str) -> str:
    """The generation that an object below TABLES belongs to."""
    return name.rpartition(".")[0]


# Searches of recipes ------------------------------------------------------------------------------


def study(study_id: str) -> str:
    """The folder of a search."""
    return f"{TUNING}/{study_id}"


def candidate(study_id: str, candidate_id: str) -> str:
    """What is known of a candidate of a search."""
    return f"{study(study_id)}/{candidate_id}.json"


def is_candidate(name: str) -> bool:
    return re.fullmatch(rf"{TUNING}/[^/]+/candidate-[^/]+\.json", name) is not None


def study_checkpoints(study_id: str) -> str:
    """The folder of the checkpoints of a search."""
    return f"{study(study_id)}/checkpoints"


def candidate_checkpoints(study_id: str, candidate_id: str, part: int) -> str:
    """The folder of the checkpoints of one of a candidate's trainings."""
    return f"{study_checkpoints(study_id)}/{candidate_id}/{part}"


def candidate_artefacts(study_id: str, candidate_id: str, part: int) -> str:
    """The folder of what one of a generator's trainings keeps between its attempts."""
    return f"{candidate_checkpoints(study_id, candidate_id, part)}/artefacts"


# Grids --------------------------------------------------------------------------------------------


def grid_folder(grid: str) -> str:
    return f"{GRIDS}/{grid}"


def spec(grid: str) -> str:
    return f"{GRIDS}/{grid}/spec.json"


def planned(grid: str) -> str:
    """What planning learned of the world for the grid."""
    return f"{GRIDS}/{grid}/planned.json"


def is_spec(name: str) -> bool:
    return re.fullmatch(rf"{GRIDS}/[^/]+/spec\.json", name) is not None


def top_folder(name: str) -> str:
    return name.partition("/")[0]


def grid_of(name: str) -> str:
    """The grid that an object below GRIDS belongs to."""
    return name.split("/")[1]


def lock(grid: str) -> str:
    return f"{GRIDS}/{grid}/lock.json"


def runs(grid: str) -> str:
    """The folder of the summaries of a grid's runs."""
    return f"{GRIDS}/{grid}/runs"


def run(grid: str, attempt: str) -> str:
    return f"{runs(grid)}/{attempt}.json"


def analysis(grid: str, name: str) -> str:
    """What the analysis of a grid publishes."""
    return f"{GRIDS}/{grid}/analysis/{name}"
