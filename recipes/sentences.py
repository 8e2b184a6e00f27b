"""One sentence for what jsonargparse says in many lines, with the nearest names."""

import inspect
import re
from collections.abc import Iterable, Sequence
from importlib import import_module

from jsonargparse import ArgumentParser

from tristate.kernels.registry import nearest


def explain(message: str, keys: Sequence[str]) -> str:
    """The cause in ``message``, an error of the parser, as one sentence.

    Args:
        message: of many lines.
        keys: all that are known, dotted (``trainer.max_epochs``).
    """
    for pattern, tell in _CAUSES:
        if match := re.search(pattern, message):
            return tell(keys, message, match)
    # A cause that is not in the table keeps its words, on one line.
    return " ".join(message.split())


def keys_of_parser(parser: ArgumentParser) -> list[str]:
    """Every key that ``parser`` takes, dotted."""
    keys = {action.dest for action in parser._actions}
    return sorted(key for key in keys if not key.endswith("help") and not key.startswith("print_"))


def keys_of_class(class_path: str) -> list[str]:
    """What the constructor of the class takes, through its ``**kwargs`` too."""
    module, _, name = class_path.rpartition(".")
    probe = ArgumentParser(exit_on_error=False)
    return probe.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)


def _under(key: str, keys: Iterable[str]) -> str:
    """The nearest of ``keys``, looked for first among those in the group of ``key``."""
    group, _, last = key.rpartition(".")
    inside = [known for known in keys if known.rpartition(".")[0] == group]
    if group and inside:
        hint = nearest(last, [known.rpartition(".")[2] for known in inside])
        return f"{group} has no key {last!r}; {hint}"
    return f"there is no key {key!r}; {nearest(key, keys)}"


def _not_of_class(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    path, key = match["path"], match["key"]
    return f"{path} takes no argument {key!r}; {nearest(key, keys_of_class(path))}"


def _not_in_group(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return _under(f"{match['group']}.{match['key']}", keys)


def _no_key(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    key = match["key"]
    # `modle.init_args.lr`: the first part that is not known is the wrong one.
    top = sorted({known.partition(".")[0] for known in keys})
    head = key.partition(".")[0]
    if head not in top:
        # `--max_epochs` for `--trainer.max_epochs`, `--lr` for `--model.lr`.
        if full := [known for known in keys if known.endswith(f".{key}")]:
            return f"there is no key {key!r}; did you mean {' or '.join(full)}?"
        return f"there is no key {head!r}; {nearest(head, top)}"
    return _under(key, keys)


def _no_option(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    word = match["words"].split()[0]
    if not word.startswith("--"):
        return f"unexpected word {word!r}; settings are given as --key value"
    return _no_key(keys, message, re.match(r"--(?P<key>[^=\s]+)", word) or match)


def _no_attribute(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    module = import_module(match["module"])
    classes = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    return f"{match['module']} has no class {match['name']!r}; {nearest(match['name'], classes)}"


def _no_module(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"there is no module {match['module']!r} for the class {match['path']!r}"


def _not_a_path(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    key, name = match["key"], match["name"]
    return f"{key} wants a class as package.module.Class, got {name!r}"


def _wrong_class(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"{match['path']} is not {match['what']}, which {match['key']} wants"


def _wrong_type(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    path = re.findall(r'Parser key "([^"]+)"', message)
    wanted = re.findall(
        r"Expected (?:a|one of) (?:<class '([\w.]+)'>|(.+?))(?:\. Got|\n|$)", message
    )
    names = list(dict.fromkeys(a or b for a, b in wanted))
    # Every error inside a class ends with "Expected a NoneType", which is about the class itself.
    if len(path) > 1:
        names = [name for name in names if name != "NoneType"] or names
    got = re.search(r"Got value: (.*)", message) or re.search(r"Given value: (.*)", message)
    came = got[1].strip() if got else "something else"
    kinds = " or ".join(_kind(name) for name in names)
    return f"{'.'.join(path)} wants {kinds}, got {came!r}"


def _kind(name: str) -> str:
    """``typing.Literal['a', 'b']`` as ``'a', 'b'``; ``NoneType`` as YAML writes it."""
    literal = re.match(r"typing\.Literal\[(.*)\]", name)
    return literal[1] if literal else {"NoneType": "null"}.get(name, name)


def _no_value(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"{match['option']} wants a value"


def _unset(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"{match['path']} needs a value for {match['names'].strip()}"


def _missing(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"the recipe lacks {match['names']}"


def _no_file(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"there is no file {match['path']}"


def _bad_yaml(keys: Sequence[str], message: str, match: re.Match[str]) -> str:
    return f"the recipe is not valid YAML: {' '.join(match['why'].split())}"


_PROBLEM = r"Problem with given class_path '(?P<path>[^']+)':\s+"

# From the narrowest to the widest: the first that is found speaks.
_CAUSES = (
    (r"Problems parsing config: (?P<why>[\s\S]+)", _bad_yaml),
    (_PROBLEM + r"Option '(?P<key>[^']+)' is not accepted", _not_of_class),
    (_PROBLEM + r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'", _no_attribute),
    (_PROBLEM + r"unrecognized arguments: --(?P<key>[^=\s]+)", _not_of_class),
    (_PROBLEM + r"the following arguments are required: (?P<names>.+)", _unset),
    (_PROBLEM + r"No module named '(?P<module>[^']+)'", _no_module),
    (
        r"Parser key \"(?P<key>[^\"]+)\":[\s\S]*"
        r"Import path (?P<path>\S+) does not correspond to (?P<what>a [^\n]+)",
        _wrong_class,
    ),
    (
        r"Parser key \"(?P<key>[^\"]+)\":[\s\S]*Expected a dot import path string: (?P<name>\S+)",
        _not_a_path,
    ),
    (r"Group '(?P<group>[^']+)' does not accept option '(?P<key>[^']+)'", _not_in_group),
    (r"Option '(?P<key>[^']+)' is not accepted", _no_key),
    (r"unrecognized arguments: (?P<words>.+)", _no_option),
    (r"argument (?P<option>--\S+): expected one argument", _no_value),
    (r"File does not exist: '(?P<path>[^']+)'", _no_file),
    (r"the following arguments are required: (?P<names>.+)", _missing),
    (r"Expected (a|one of) ", _wrong_type),
)
