"""One-line changes of the library, each of which breaks a guarantee: what the suite must notice.

First the guarantee, the file and what the change breaks; then the old text, which occurs there
exactly once, and the new text.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    guarantee: str
    file: str  # in src/fastapi_tasks
    breaks: str
    old: str
    new: str


def parse(text: str) -> Mutant:
    head, *lines = text.splitlines()
    old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
    return Mutant(*head.split(maxsplit=2), old, new)


TEXT = r"""
G1 _host.py the first step runs inside of the schedule() call
- return group.current.create_task(
+ coro.send(None); return group.current.create_task(

G2 _request.py now is when the endpoint has returned
- waiting = self._waiting.get(task.timing)
+ waiting = self._waiting.get(task.timing if task.timing != "now" else "after_route")

G2 _mailbox.py a def endpoint's task starts when the event loop wakes up for something else
- self._writer.send(b"\0")
+ pass

G3 _exchange.py the response does not wait until its tasks have started
- await tasks._response_starts()
+ tasks._reach("after_route")

G3 _exchange.py after the response is before its last message is sent
-         await send(message)
-         self.end()
+         self.end(); await send(message)

G3 _exchange.py after the response is after the first part of its body
- message.get("more_body", False)
+ False

G3 _exchange.py after the response is before its trailers
- message.get("trailers", False)
+ False

G3 _exchange.py a file that the server sends is no last message
- case "http.response.pathsend":
+ case "http.response.nothing":

G3 _request.py a response that a middleware makes does not start what comes before it
- self._reach("after_route")  # which
+ pass  # which

G4 _request.py tasks start in the order that the event loop likes
- while queue[0] is not task:
+ while False:

G4 _request.py the last task starts first
- self._queue.append(task)
+ self._queue.appendleft(task)

G4 _request.py what waits for a timing point starts in the reverse order
- tasks = tuple(self._waiting.pop(timing, ()))
+ tasks = tuple(reversed(self._waiting.pop(timing, ())))

G5 _request.py every task holds the response
- if task.config.hold_response and not self._responded
+ if not self._responded

G5 _runner.py the response waits until there is a thread for each of its tasks
- task._enter(RUNNING)
+ await self._threads.acquire(); self._threads.release(); task._enter(RUNNING)

G6 _fastapi.py a failed route drops nothing
- tasks._route_failed(error)
+ tasks._reach("after_route")

G6 _request.py a failed route also drops what was to run even then
- and not task.config.even_if_failed
+

G6 _request.py what fails after the route drops tasks, too
- self._waiting.values() if "after_route" in self._waiting else ()
+ self._waiting.values()

G6 _request.py the line of a failed route is a warning
-                 INFO,
+                 30,

G6 _fastapi.py a client that leaves makes a WebSocket's route fail
- return isinstance(error, WebSocketDisconnect)
+ return False

G6 _fastapi.py a client that leaves hides another failure
- all(map(_is_disconnect
+ any(map(_is_disconnect

G7 _request.py late tasks never start
- self._waiting.pop(timing, ())
+ self._waiting.get(timing, ())

G7 _exchange.py a request's first use of tasks after its response is lost
- if self.ended:
+ if False:

G7 _request.py a route that runs after the response brings timing points back
-  or self._responded:
+ :

G7 _request.py a second route in a request loses what waits for the first one's end
- self._waiting = {"after_route": {}, **self._waiting}
+ self._waiting["after_route"] = {}

G7 _runner.py a schedule() call that fails half-way leaves a task that nobody starts
- self._host.call(partial(self._discard, task))
+ pass

G8 _request.py what waits for its timing point runs in the context of that moment
- task._context = copy_context()
+ task._context = None

G8 _runner.py a copied context is not used
- name=task.name, context=context
+ name=task.name, context=None

G8 _runner.py what threads schedule runs in the context of the event loop's mailbox
- copy_context() if context is None else context
+ context

G9 _function.py sync tasks take the threads of def endpoints
- limiter=CapacityLimiter(1)
+ limiter=None

G9 _function.py max_threads means nothing
- nullcontext() if threads is None else _Slot(threads):
+ nullcontext():

G9 _host.py one thread more than max_threads
- CapacityLimiter(max_threads)
+ CapacityLimiter(max_threads + 1)

G9 _function.py the coroutine that a sync callable returns is thrown away
- if inspect.iscoroutine(result):
+ if False:

G9 _function.py a partial is a sync function, with a name of its own
- while isinstance(func, partial):
-         func = func.func
-     return func
+ return func

G10 _scheduler.py schedule() takes anything, and the task fails
- check_callable(func)
+ pass

G10 _function.py async generator functions are taken for sync ones
-  or _is(inspect.isasyncgenfunction, func)
+

G10 _function.py the error shows the value
- kind = type(func).__qualname__
+ kind = repr(func)

G11 _host.py threads reach into the event loop
- return get_ident() == self._thread
+ return True

G11 _mailbox.py what a thread hands over while the event loop takes the rest waits for the next
-         self._is_woken = False
-         return [self._items.popleft() for _ in range(len(self._items))]
+         items = [self._items.popleft() for _ in range(len(self._items))]; import time
+         time.sleep(0.001); self._is_woken = False; return items

G11 _mailbox.py of what threads hand over at once, all but the first item waits for the next
- for _ in range(len(self._items))
+ for _ in range(1)

G11 _mailbox.py a hand-over under way when the runner closes meets a closed socket
- suppress(OSError)
+ suppress()

G11 _runner.py cancel() runs in the thread that calls it
- self._host.call(partial(self._cancel_here, task))
+ self._cancel_here(task)

G12 _runner.py SystemExit in a task gets out
- except BaseException as exc:
+ except Exception as exc:

G12 _call.py SystemExit in an error handler gets out
- except BaseException as exc:
-         _contain
+ except Exception as exc:
+         _contain

G12 _instrument.py SystemExit in an instrument gets out
- except BaseException as exc:
+ except Exception as exc:

G12 _log.py a logging handler that raises ends the runner
- suppress(Exception)
+ suppress()

G12 _call.py a KeyboardInterrupt does not pass with another error beside it
- any(_is(part, KeyboardInterrupt)
+ all(_is(part, KeyboardInterrupt)

G12 _group.py a task group that a task took down is not replaced
- is_lost = group.cancel_scope.cancel_called and not scope.cancel_called
+ is_lost = False

G12 _group.py an error in a group that is cancelled anyway gets out
- not (is_lost or error)
+ not is_lost

G12 _runner.py a task of a lost group that never began is unfinished for ever
- before.keys() & self._unbegun().keys():
+ ():

G12 _runner.py a task that is about to begin counts as lost
- for _ in range(2):  # within
+ for _ in range(0):  # within

G12 _runner.py a task that was not let end is unfinished for ever
- if handle is not None and handle.status not in _GOING_ON:
+ if False:

G12 _group.py a task that was not let end in the drain is unfinished for ever
-                 log(ERROR, "this broke a task of the event loop", error=error)
-                 with CancelScope(shield=True):
+                 log(ERROR, "this broke a task of the event loop", error=error)
+                 if False:

G9 _function.py a thread that has ended lends its slot
- lender._is_taken and lender._threads
+ lender._threads

G12 _call.py an exception's class is asked, which may raise
- issubclass(type(exc), kind)
+ isinstance(exc, kind)

G12 _request.py a task that cannot be started keeps those after it from starting
- self.runner._start_late(task)
+ self.runner._start(task)

G9 _function.py threads that wait for one more each wait for ever
- if lender is not None and lender._is_taken and lender._threads is threads:
+ if False:

G9 _runner.py a task from a thread takes no thread of its own
- thread_slot.set(None)
+ pass

G3 _request.py a response in a cancelled scope does not start
-             while task.state is PENDING:
-                 await cancel_shielded_checkpoint()
+             while task.state is PENDING:
+                 await __import__("anyio").lowlevel.checkpoint()

G13 _call.py the log line has no traceback
- error=failure)
+ error=None)

G13 _runner.py a failure with an error handler is logged twice
- await handle_error(task, threads, scope)
+ await handle_error(task, threads, scope); log(40, "again")

G13 _task.py the repr shows the arguments
- {self.state.value}>
+ {self.args}>

G13 _function.py a callable object's name is its repr
- name if isinstance(name, str) else type(func).__qualname__
+ name if isinstance(name, str) else repr(func)

G14 _call.py a cancellation in a group is a failure
- return group.split(cancelled)[1]
+ return group

G14 _call.py each cancellation is worth a warning
- if not (scope.cancel_called or task._is_cancelling):
+ if True:

G14 _call.py a cancelled task has failed
- task.state = CANCELLED
+ task.state = task.state.FAILED

G15 _lifespan.py the drain comes after the app's own shutdown code
- if message["type"] == "lifespan.shutdown":
+ if False:

G15 _lifespan.py the server may end everything before the runner has ended
- held_back.append(message)
+ await send(message)

G15 _lifespan.py the lifespan's exception reaches the server in a group
- raise error
+ raise BaseExceptionGroup("lifespan", [error])

G16 _lifespan.py endless loops are not told
- runner.stopping.set()
+ pass

G16 _lifespan.py no grace period
- current_time() + grace_period
+ current_time()

G16 _lifespan.py unshielded tasks are accepted after the grace period
- runner._registry.enter(DRAINING)
+ pass

G16 _lifespan.py what has not started is not cancelled
- if task.state is PENDING:
+ if False:

G16 _lifespan.py shielded tasks wait for a timing point that does not come
- line._release()
+ pass

G16 _lifespan.py shielded tasks are waited for without limit
- math.inf if shield_timeout is None else shield_timeout
+ math.inf

G16 _lifespan.py not every shielded task that is cancelled is named
- names(shielded, at_most=len(shielded))
+ names(shielded)

G17 _host.py shielded tasks are cancelled with the others
- self._shielded if shielded else self._unshielded
+ self._unshielded

G17 _request.py a request that the server cuts off drops its shielded tasks
- and not (cut_off and task.config.shielded)
+

G17 _lifespan.py threads that run are not named while the shutdown waits for them
- await self._wait_for_tasks(math.inf)
+ pass

G17 _lifespan.py a shielded task from the last moment is cancelled
- await self._wait_for_tasks(deadline)  # what
+ pass  # what

G18 _lifespan.py the second lifespan is stopping from its start
- runner.stopping = Event()
+ pass

G18 _lifespan.py a lifespan runs once only
- self._only_one.release()
+ pass

G18 _lifespan.py two lifespans at the same time share a runner
- if not self._only_one.acquire(blocking=False):
+ if False:

G18 _fastapi.py an app that a middleware tries first keeps its hand on the request
- exchange.runner = outer
+ pass

G3 _fastapi.py a scope that is used twice is watched once
- is not None and not outer.ended:
+ is not None:

G18 _fastapi.py a mounted app whose runner runs uses the outer app's
- exchange.runner = runner
+ pass

G19 _registry.py one task more than max_tasks
- len(self.tasks) >= self._max_tasks
+ len(self.tasks) > self._max_tasks

G19 _registry.py no limit
- math.inf if max_tasks is None else max_tasks
+ math.inf
"""
MUTANTS = [parse(text) for text in TEXT.strip().split("\n\n")]
