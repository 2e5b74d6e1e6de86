"""What has to be installed for the settings, looked for before anything is begun."""

from contextlib import suppress
from importlib.util import find_spec

from chatd.config import Config
from chatd.embedded import find_binaries
from chatd.errors import ConfigError
from chatd.local_model import find_model


def check_installed(config: Config, *, model: bool = True) -> None:
    """Raise ConfigError for what is missing, before anything is begun."""
    if config.database_url is None:
        find_binaries()
    if model and config.is_local_model:
        find_model(config.local_model)
    if config.auth == "jwt":
        check_jwt()
    if config.otlp_endpoint:
        check_otel()
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"CHATD_DATA_DIR: {config.data_dir} can't be made: {error.strerror}") from error


def check_jwt() -> None:
    """Raise ConfigError where the library is missing that signs and checks tokens."""
    if find_spec("joserfc") is None:
        raise ConfigError("tokens need one more package: pip install 'chatd[jwt]'")


def check_otel() -> None:
    """Raise ConfigError where the library is missing that sends traces."""
    with suppress(ModuleNotFoundError):  # of the packages that it is in
        if find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http"):
            return
    raise ConfigError("OTEL_EXPORTER_OTLP_ENDPOINT: traces need some more packages: pip install 'chatd[otel]'")
