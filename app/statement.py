"""One SELECT that is asked often: compiled once, run on the driver's own connection.

Leaves out the session, its transaction and its objects, which cost ten times the query. It reads in
autocommit: one statement sees one snapshot by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Select
from sqlalchemy.exc import OperationalError

from app.db import Database

Raw = tuple[Any, ...]
Decode = Callable[[Any], Any]


class Statement:
    """A SELECT of labelled columns with named parameters; each thread has its connection."""

    def __init__(self, database: Database, select: Select[Any]) -> None:
        self._engine = database.engine
        dialect = self._engine.dialect
        compiled = select.compile(dialect=dialect)
        self._sql = str(compiled)
        self._given = compiled.construct_params(_check=False)
        self._order = compiled.positiontup
        self._columns = list(select.selected_columns)
        self.names = tuple(str(column.key) for column in self._columns)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._decoders: list[Decode | None] = []  # once the driver has told its types
        self._local = threading.local()
        self._open: list[Any] = []

    def connect(self) -> None:
        """Open this thread's connection ahead of its first question."""
        self._connection()

    def one(self, **values: Any) -> Raw | None:
        """The one row as the driver has it, or None. Raises OperationalError."""
        given = {**self._given, **values}
        if self._order is not None:
            parameters: Any = [given[name] for name in self._order]
        else:
            parameters = given
        error = self._engine.dialect.loaded_dbapi.Error
        try:
            return self._ask(parameters)
        except error:
            self._forget()  # the server may have been restarted since: once more, anew
        try:
            return self._ask(parameters)
        except error as again:
            self._forget()
            raise OperationalError(self._sql, None, again) from again

    def value(self, row: Raw, name: str) -> Any:
        """One of a row's values, as its column's type has it."""
        place = self._places[name]
        decode = self._decoders[place]
        return row[place] if decode is None else decode(row[place])

    def decoded(self, row: Raw) -> dict[str, Any]:
        """A row's values by their names, as the columns' types have them."""
        return {
            name: value if decode is None else decode(value)
            for name, decode, value in zip(self.names, self._decoders, row, strict=True)
        }

    def close(self) -> None:
        """Close every thread's connection; no thread may be asking."""
        while self._open:
            self._open.pop().close()

    def _ask(self, parameters: Any) -> Raw | None:
        cursor = self._connection().execute(self._sql, parameters)
        try:
            if not self._decoders:
                self._decoders = self._made_for(cursor.description)
            row: Raw | None = cursor.fetchone()
        finally:
            cursor.close()
        return row

    def _made_for(self, description: Any) -> list[Decode | None]:
        dialect = self._engine.dialect
        return [
            column.type.dialect_impl(dialect).result_processor(dialect, told[1])
            for column, told in zip(self._columns, description, strict=True)
        ]

    def _connection(self) -> Any:
        found: Any = getattr(self._local, "connection", None)
        if found is None:
            pooled = self._engine.raw_connection()
            found = pooled.driver_connection
            pooled.detach()  # out of the pool: ours until it breaks
            if self._engine.dialect.name == "postgresql":
                found.autocommit = True
            self._local.connection = found
            self._open.append(found)
        return found

    def _forget(self) -> None:
        found = getattr(self._local, "connection", None)
        if found is not None:
            self._local.connection = None
            self._open.remove(found)
            found.close()
