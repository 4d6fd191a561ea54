"""An app whose tasks write to a real database, each with a session that it gets as a dependency.

`$JOURNAL` names the file that how each task has ended goes to; the database stands beside it.
`$SESSIONS` says which sessions: "sync", in worker threads, or "async", which asyncio alone has.
"""

import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from anyio import from_thread
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_tasks import INJECTED, Instrument, Task, Tasks, add_tasks

JOURNAL = Path(os.environ["JOURNAL"])
DATABASE = JOURNAL.with_suffix(".sqlite")
OPTIONS: dict[str, Any] = {
    "pool_size": 5,
    "max_overflow": 0,
    "connect_args": {"timeout": 60},  # seconds for the others' transactions to end
}
engine = create_engine(f"sqlite:///{DATABASE}", **OPTIONS)
async_engine = create_async_engine(f"sqlite+aiosqlite:///{DATABASE}", **OPTIONS)
_file = JOURNAL.open("a", buffering=1)


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(primary_key=True)


class Ends(Instrument):
    """Writes down how each task has ended."""

    def task_finished(self, task: Task[..., Any]) -> None:
        _file.write(f"{task.args[0]} {task.state.value}\n")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    yield
    pools = engine.pool, async_engine.pool
    _file.write(f"checked out: {sum(pool.checkedout() for pool in pools)}\n")  # type: ignore[attr-defined]
    engine.dispose()
    await async_engine.dispose()
    # SQLAlchemy closes in the background what was cancelled in the middle of a statement; if the
    # event loop ends before that, the connection's thread never does.
    while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
        await anyio.sleep(0.01)


app = FastAPI(lifespan=lifespan)
runner = add_tasks(app, instruments=[Ends()])


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session
        session.commit()


async def get_async_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(async_engine) as session:
        yield session
        await session.commit()


def write(number: int, session: Annotated[Session, Depends(get_session)] = INJECTED) -> None:
    session.add(Order(number=number))
    session.flush()
    time.sleep(0.002)
    from_thread.check_cancelled()


async def write_async(
    number: int, session: Annotated[AsyncSession, Depends(get_async_session)] = INJECTED
) -> None:
    session.add(Order(number=number))
    await session.flush()
    await anyio.sleep(0.002)


@app.post("/orders/{number}")
async def create_order(number: int, tasks: Tasks) -> None:
    if os.environ["SESSIONS"] == "sync":
        tasks.after_response.schedule(write, number)
    else:
        tasks.after_response.schedule(write_async, number)
