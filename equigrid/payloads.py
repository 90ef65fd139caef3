"""What every configuration is made of, and what of it enters an id.

An id is a hash of all that determines an output (`equigrid.grid.ids`). A configuration grows: it
gains fields. A new field must not give old work a new id, or a store of finished results would be
lost. So a field that a class did not have from the start stays out of payloads while it holds the
value that means "as before", and enters them with any other value.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class AsBefore(NamedTuple):
    """The value of a later field that means "as before", where that is not its default:
    `order: Annotated[int, AsBefore(2)] = 3`. Write it when the default of a later field changes.
    """

    value: Any


class Frozen(BaseModel):
    """A configuration: frozen, without unknown keys, its numbers finite.

    A subclass names in `original` the fields that it has had from the start: they are in every
    payload. Never add a name there later; a class that is new needs none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    original: ClassVar[tuple[str, ...]] = ()

    def identity(
        self,
        *,
        include: Collection[str] | None = None,
        exclude: Collection[str] | Mapping[str, Any] = (),
        **how: Any,
    ) -> dict[str, Any]:
        """The JSON of this configuration for an id, without later fields that are as before.

        include, exclude: names of fields, or for exclude a mapping from names to what is left out
        of them, as pydantic takes it. how: further options of pydantic's `model_dump`.
        """
        left_out = _merged(_as_before(self), _as_mapping(exclude))
        only = None if include is None else {*include}
        return self.model_dump(mode="json", include=only, exclude=left_out, **how)

    def added(self) -> dict[str, Any]:
        """The later fields alone, if they are not as before: for payloads that name their fields
        one by one.
        """
        return self.identity(include=later_fields(type(self)))


def later_fields(model: type[Frozen]) -> dict[str, FieldInfo]:
    """The fields that a class did not have from the start, by name."""
    original = {name for part in model.__mro__ for name in vars(part).get("original", ())}
    return {
        name: field
        for name, field in model.model_fields.items()
        if name not in original and not _is_tag(field)
    }


def _is_tag(field: FieldInfo) -> bool:
    """Whether the field has one value only, which tells its class from others."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _as_before(value: Any) -> dict[Any, Any]:
    """What to leave out of a configuration's dump, in the form of pydantic's `exclude`."""
    if isinstance(value, list | tuple):
        return {i: found for i, item in enumerate(value) if (found := _as_before(item))}
    if isinstance(value, dict):
        return {key: found for key, item in value.items() if (found := _as_before(item))}
    if not isinstance(value, Frozen):
        return {}
    later = later_fields(type(value))
    left_out: dict[Any, Any] = {}
    for name in type(value).model_fields:
        own = getattr(value, name)
        if name in later and own == _before(later[name]):
            left_out[name] = True
        elif inner := _as_before(own):
            left_out[name] = inner
    return left_out


def _merged(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    """Both of two things to leave out; True leaves out all of a field."""
    both = {**one, **other}
    for name in one.keys() & other.keys():
        whole = one[name] is True or other[name] is True
        both[name] = True if whole else _merged(one[name], _as_mapping(other[name]))
    return both


def _as_mapping(names: Collection[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    return names if isinstance(names, Mapping) else dict.fromkeys(names, True)


def _before(field: FieldInfo) -> Any:
    for mark in field.metadata:
        if isinstance(mark, AsBefore):
            return mark.value
    return field.get_default(call_default_factory=True)
