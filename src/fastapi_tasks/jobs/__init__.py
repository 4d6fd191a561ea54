"""What became of a task, to be asked for by its id: after it has finished, and over HTTP.

    history = History()
    runner = add_tasks(app, instruments=[history])
    app.include_router(create_router(history), prefix="/jobs", dependencies=[Depends(require_user)])

    @app.post("/exports", status_code=202)
    async def export(tasks: Tasks, response: Response) -> None:
        task = tasks.after_response.schedule(write_export)
        response.headers["Location"] = f"/jobs/{task.id}"

A history is of one process, and lives as long as that. What is remembered of a task is a record:
neither the task, nor its arguments.
"""

from .history import History
from .records import RecordedError, RecordedProgress, TaskRecord
from .router import create_router

__all__ = ("History", "RecordedError", "RecordedProgress", "TaskRecord", "create_router")

for _object in (History, RecordedError, RecordedProgress, TaskRecord, create_router):
    _object.__module__ = __name__  # where users find it
