"""Settings from files, and passwords that are kept apart from addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings.exceptions import SettingsError
from sqlalchemy import make_url

from app.settings import Settings

ADDRESS = "postgresql+psycopg://tdmr@postgres:5432/tdmr?sslmode=require"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("TDMR_SECRETS_DIR", str(folder))
    return folder


def test_a_file_is_read_like_a_variable_which_goes_first(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "tdmr_database_url").write_text(f"{ADDRESS}\n")
    (secrets / "tdmr_max_attempts").write_text("7")
    (secrets / "tdmr_max_sessions").write_text("5")
    (secrets / "another_services").write_text("x")
    monkeypatch.setenv("TDMR_MAX_ATTEMPTS", "8")
    settings = Settings()
    assert (settings.url, settings.max_attempts, settings.max_sessions) == (ADDRESS, 8, 5)


def test_passwords_are_put_into_the_addresses_whatever_is_in_them(secrets: Path) -> None:
    odd = "p@ss:/w?#%&ü"
    (secrets / "TDMR_DATABASE_PASSWORD").write_text(odd)
    (secrets / "TDMR_BROKER_PASSWORD").write_text("s/ecret")
    settings = Settings(database_url=ADDRESS, broker_url="redis://redis:6379/0")
    found = make_url(settings.url)
    assert (found.username, found.password, found.host) == ("tdmr", odd, "postgres")
    assert (found.port, found.database, found.query) == (5432, "tdmr", {"sslmode": "require"})
    assert settings.broker_url == "redis://:s%2Fecret@redis:6379/0"
    again = Settings(**settings.model_dump())
    assert (again.url, again.broker_url) == (settings.url, settings.broker_url)


def test_a_folder_of_secrets_that_isnt_there_is_an_error(secrets: Path) -> None:
    secrets.rmdir()
    with pytest.raises(SettingsError, match="does not exist"):
        Settings()
