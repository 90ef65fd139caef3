"""Class names in words, and the prompts made of them."""

import re
from string import Formatter

_NUMBER = re.compile(r"[\d\s._-]*")
_WORDNET = re.compile(r"n\d{8}")


def checked_template(template: str) -> str:
    """The template itself; ValueError unless it holds {c}, and nothing else in braces but {a}."""
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError:
        fields = [""]
    if "c" not in fields or set(fields) - {"a", "c"}:
        raise ValueError(
            "a prompt holds {c}, the class's name, and perhaps {a}, its article; no other braces"
        )
    return template


def prompt(template: str, name: str) -> str:
    """The template with the class's name in it: "a photo of {a} {c}." and "owl" give "a photo of an
    owl.".
    """
    return template.format(c=name, a=article(name))


def article(name: str) -> str:
    """The indefinite article, by the first letter: "an" for "unicorn" too, where a template of
    one's own helps.
    """
    return "an" if name[0].lower() in "aeiou" else "a"


def names(
    class_names: tuple[str, ...], rename: dict[str, str], classes: int, *, any_name: bool = False
) -> tuple[str, ...]:
    """The classes in words: renamed, or the dataset's with underscores as spaces.

    Raises ValueError, one line, where there are no names, where one is a number or a WordNet id,
    which say nothing to a text encoder (unless any_name), and for a renaming of a class that does
    not exist.
    """
    if len(class_names) != classes:
        given = f"{len(class_names)} names for {classes} classes" if class_names else "none"
        raise ValueError(
            f"prompts need the classes' names, got {given}; give the dataset `class_names`"
        )
    for name in rename:
        if name not in class_names:
            raise ValueError(
                f"rename: there is no class {name!r}; there are {', '.join(class_names)}"
            )
    made = tuple(" ".join(rename.get(name, name).replace("_", " ").split()) for name in class_names)
    for given, name in zip(class_names, made):
        if any_name:
            continue
        if _NUMBER.fullmatch(name) or _WORDNET.fullmatch(name):
            raise ValueError(
                f"class name {given!r} is no word to prompt with; "
                "give the dataset `class_names`, or `rename` it"
            )
    return made
