"""What the analysis may choose, in one frozen object that travels with every result."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Metric = Literal[
    "top1", "top5", "val_top1", "balanced_accuracy", "macro_f1", "auc", "sensitivity", "specificity"
]
METRICS: tuple[Metric, ...] = get_args(Metric)
NAMES: dict[str, str] = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "val_top1": "top-1 accuracy on validation images",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
SurfaceRule = Literal["eq11", "adjusted_r2", "aicc", "loo"]
Term = Literal["n_real", "n_syn", "log_real", "log_syn", "log_total"]
Form = Literal["paper", "robust", "log", "relative"]


class Settings(BaseModel):
    """Choices of the fit (the paper's Appendix A where it states them) and of the intervals.

    The defaults follow the paper: surface of Eq. 11, ratios above 100 discarded, unweighted least
    squares in the form of Eq. 13, tau = 10 / n_total. Epsilon is unstated there; 1e-6 is ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric = "top1"
    # Eq. 11, the criterion that chooses among all 31 subsets of Eq. 10, or one such subset.
    surface: SurfaceRule | Annotated[tuple[Term, ...], Field(min_length=1)] = "eq11"
    epsilon: float = Field(1e-6, gt=0)  # in images, inside the logarithms of Eq. 10
    # Tuples above this n_syn / n_base are discarded (Appendix A).
    ratio_limit: float = Field(100.0, gt=0)
    form: Form = "paper"
    # By dataset; where absent, each base size's measured ratios.
    real_ratios: dict[str, tuple[float, ...]] = {}
    # By dataset: nominal base sizes that give tuples; absent: all.
    tuple_bases: dict[str, tuple[int, ...]] = {}
    # By dataset: images in the test set, where rows do not tell.
    test_sizes: dict[str, int] = {}
    dataset_sizes: dict[str, int] = {}  # by dataset: images in the whole training set, for tau
    level: float = Field(0.95, gt=0.5, lt=1.0)
    replicates: int = Field(1000, ge=0)
    seed: int = Field(0, ge=0)
    # "residual": scatter about the surface even where seeds exist.
    noise: Literal["auto", "residual"] = "auto"
    # variants of the fit and what would narrow the intervals: half the time of a small table
    details: bool = True
    # Generator variance pooled over base sizes, relative to their residual variance.
    pool_generators: bool = True

    @field_validator("real_ratios")
    @classmethod
    def _positive(cls, ratios: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for dataset, values in ratios.items():
            if not values or min(values) <= 0:
                raise ValueError(
                    f"real_ratios of {dataset!r} are {values}: give at least one, all positive"
                )
        return ratios


DEFAULTS = Settings()
