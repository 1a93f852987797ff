"""The command line: defines absl flags from the options of a config, and turns errors into exit codes.

    cli.run(TrainConfig, main)                           # parses flags and flagfiles, then calls main(config)
    cli.run(PredictConfig, main, positional='images')    # positional arguments go into the option `images`

`--flagfile=configs/x.cfg` reads a recipe; flags after it override it. This module does not import TensorFlow, so
`--help` and the error for a misspelt flag appear at once.
"""

import errno
import functools
import io
import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, TypeVar

from absl import app, flags, logging

from configs import flagfiles, help_text
from configs import options as options_lib
from configs.retired_flags import RetiredFlag
from configs.unread import advice, unread
from support import console, keras_settings, library
from support.errors import InputError, WorkerLostError

ConfigT = TypeVar('ConfigT')

_LONGEST_ERROR = 1000  # characters of an error about flags, whose values may be of any length
_DEFINERS = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def run(
    config_class: type[ConfigT],
    main: Callable[[ConfigT], int],
    retired_flags: Sequence[RetiredFlag] = (),
    positional: str | None = None,
    usual: Sequence[str] = (),
    example: str = '',
) -> None:
    """Parses the command line, calls `main` with the config and exits with its status; 1: bad input, 2: bad flags.

    Args:
        config_class: The config whose options become flags.
        main: Returns the exit status.
        retired_flags: Slim's flags that are accepted without effect.
        positional: The list option that takes positional arguments, before, between or after flags; at least one is
            required. If None, positional arguments are an error.
        usual: Common options, which `--help` shows first.
        example: A command for `--help`.
    """
    console.open_closed_streams()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    library.load_lightly()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # like stderr: a terminal may lack letters of a name
    define_flags(config_class, retired_flags)
    flags.FLAGS.set_gnu_getopt(positional is not None)
    given: set[str] = set()

    def show_help() -> None:
        script = sys.modules['__main__'].__doc__ or ''
        print(help_text.help_text(script, config_class, retired_flags, usual, example), flush=True)

    def parse(argv: list[str]) -> list[str]:
        _define_help_flags(show_help)
        rest, names = _parse_flags(argv, positional)
        aliases = options_lib.aliases(config_class)
        given.update(aliases.get(name, name) for name in names)
        return rest

    def call_main(arguments: Sequence[str]) -> int:
        log_to_stderr()
        keras_settings.check()
        for line in answers_to_retired_flags(retired_flags):
            logging.info('%s', line)
        config = config_from_flags(config_class, positional, arguments)
        warn_of_unread_flags(config, given)
        return main(config)

    app.run(lambda argv: exit_status(lambda: call_main(argv[1:])), flags_parser=parse)


def warn_of_unread_flags(config: Any, given: Collection[str]) -> None:
    """Warns about flags without effect, and about defaults that do not suit the chosen options.

    Args:
        given: Names of flags on the command line itself; flags from flagfiles do not count, as config.cfg has all.
    """
    cluster = getattr(config, 'cluster', None)
    if cluster is not None and (cluster.launch_workers or cluster.task):  # the first worker warns
        return
    for line in [*unread(config, given), *advice(config, given)]:
        logging.warning('%s', line)


def exit_status(call: Callable[[], int]) -> int:
    """Calls `call`; returns its exit status, or 1 for bad input (prints it), 130 for Ctrl-C, 141 for a closed output.

    If another worker is lost, the process ends here, because TensorFlow would wait for that worker at exit. The status
    is then 75 (EX_TEMPFAIL: try again), or 1 if a worker has reported an error that must be fixed.
    """
    try:
        return call()
    except WorkerLostError as error:
        console.print_error(error)
        sys.stdout.flush()
        os._exit(os.EX_TEMPFAIL if error.is_transient else 1)
    except InputError as error:
        console.print_error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        console.print_error(f'cannot write output: {error.strerror}')
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def define_flags(config_class: type, retired_flags: Sequence[RetiredFlag] = ()) -> None:
    """Defines an absl flag for each option, as a key flag of the script so that absl's help lists it."""
    for option in options_lib.flat_options(config_class).values():
        if option.many:
            default = ','.join(str(value) for value in option.default)
            _define(flags.DEFINE_string, option.name, default or None, option.help)
        else:
            _define(_DEFINERS[option.kind], option.name, option.default, option.help)
        if option.alias is not None:
            flags.DEFINE_alias(option.alias, option.name)
    for retired in retired_flags:
        _define(_DEFINERS[retired.kind], retired.name, retired.default, f"Accepted as slim's: {retired.answer}.")


def _define(definer: Callable[..., Any], name: str, default: Any, help: str) -> None:
    definer(name, default, help)
    flags.declare_key_flag(name)
    # absl's help lists the key flags of the script, not of this module.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


class _ShowFlag(flags.BooleanFlag):
    """A flag that replaces absl's own, shows something and ends with status 0."""

    def __init__(self, name: str, short_name: str | None, help: str, show: Callable[[], None]):
        super().__init__(name, False, help, short_name=short_name, allow_override=True)
        self._show = show

    def parse(self, argument: Any) -> None:
        super().parse(argument)
        if self.value:
            sys.exit(exit_status(self._show_all))

    def _show_all(self) -> int:
        self._show()
        sys.stdout.flush()  # here, so that `exit_status` handles a closed output
        return 0


def _define_help_flags(show_help: Callable[[], None]) -> None:
    flags.DEFINE_flag(_ShowFlag('help', 'h', 'Show the flags of this script.', show_help))
    flags.DEFINE_flag(_ShowFlag('helpshort', '?', 'Same as --help.', show_help))
    show_all = functools.partial(app.usage, writeto_stdout=True)
    flags.DEFINE_flag(_ShowFlag('helpfull', None, "Also show absl's flags.", show_all))
    show_xml = flags.FLAGS.write_help_in_xml_format
    flags.DEFINE_flag(_ShowFlag('helpxml', None, 'Same as --helpfull, in XML.', show_xml))


def _parse_flags(argv: Sequence[str], positional: str | None = None) -> tuple[list[str], set[str]]:
    """Parses flags and flagfiles; returns the program and positional arguments, and the flags on the command line."""
    try:
        arguments = flagfiles.expand(argv[1:], _takes_value, stops_at_others=positional is None)
        rest = flags.FLAGS([argv[0], *(argument.text for argument in arguments)])
    except (flags.Error, ValueError) as error:  # ValueError: from a flagfile or absl's own flags
        _exit_with_usage(argv, str(error))
    if positional is not None:
        if len(rest) == 1 and not flags.FLAGS[positional].value:
            _exit_with_usage(argv, f'no {positional} given')
    elif len(rest) > 1:
        _exit_with_usage(argv, f'not a flag: {shlex.join(rest[1:])}; options are written --name=value')
    names = {argument.flag for argument in arguments if argument.file is None}
    return rest, {name for name in flags.FLAGS if {name, f'no{name}'} & names}


def _exit_with_usage(argv: Sequence[str], message: str) -> NoReturn:
    console.print_error(f'{_shortened(message)}; see {os.path.basename(argv[0])} --help')
    sys.exit(2)


def _shortened(message: str) -> str:
    line = ' '.join(message.split('\n'))
    return line if len(line) <= _LONGEST_ERROR else f'{line[: _LONGEST_ERROR // 2]}...{line[-_LONGEST_ERROR // 2 :]}'


def _takes_value(name: str) -> bool:
    return name in flags.FLAGS and not flags.FLAGS[name].boolean


def config_from_flags(
    config_class: type[ConfigT], positional: str | None = None, arguments: Sequence[str] = ()
) -> ConfigT:
    """Returns the config from the parsed flags; appends `arguments` unchanged to the option `positional`.

    Raises:
        InputError: an option does not allow its value, or the value is not valid text.
    """
    values = {}
    for option in options_lib.flat_options(config_class).values():
        value = flags.FLAGS[option.name].value
        if isinstance(value, str):
            options_lib.check_text(option.name, value)
        values[option.name] = _parse_list(option, value) if option.many else value
    if positional is not None:
        values[positional] = (*values[positional], *arguments)
    return options_lib.make_config(config_class, **values)


def _parse_list(option: options_lib.Option, text: str | None) -> tuple[Any, ...]:
    items = [item.strip() for item in (text or '').split(',') if item.strip()]
    try:
        return tuple(option.kind(item) for item in items)
    except ValueError:
        raise InputError(f'--{option.name}={text}: must be {option.kind.__name__} values separated by commas') from None


def answers_to_retired_flags(retired_flags: Sequence[RetiredFlag]) -> list[str]:
    """Returns one line for each retired flag that was given.

    Raises:
        InputError: ignoring a flag would change the run that was asked for.
    """
    lines = []
    for retired in retired_flags:
        flag = flags.FLAGS[retired.name]
        if not flag.present:
            continue
        if retired.refuse and flag.value != retired.default:
            raise InputError(f'--{retired.name}={flag.value} cannot be honoured: {retired.answer}')
        lines.append(f'--{retired.name} is no longer needed: {retired.answer}')
    return lines


def log_to_stderr() -> None:
    """Sends the log to standard error, one line per message, without absl's prefix."""
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(console.Formatter())
    if handler.python_handler.stream is None:  # the process was started without standard error
        handler.python_handler.setStream(sys.stderr)
    flags.FLAGS['stderrthreshold'].value = 'info'


def silence_tensorflow() -> None:
    """Hides TensorFlow's own error output, for scripts that report all relevant errors; call before importing it."""
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
