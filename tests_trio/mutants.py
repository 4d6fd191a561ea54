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

    def __str__(self) -> str:
        return f"{self.guarantee:4}{self.breaks}"


def parse(text: str) -> Mutant:
    head, *lines = text.splitlines()
    old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
    return Mutant(*head.split(maxsplit=2), old, new)


TEXT = r"""
G1 _core/lifetime.py the first step runs inside of the schedule() call
- return group.current.create_task(
+ coro.send(None); return group.current.create_task(

G2 _core/timing.py now is when the endpoint has returned
- waiting = self._waiting.get(task.timing)
+ waiting = self._waiting.get(task.timing if task.timing != "now" else "after_route")

G2 _core/mailbox.py a def endpoint's task starts when the event loop wakes up for something else
- self._writer.send(b"\0")
+ pass

G3 _fastapi/exchange.py the response does not wait until its tasks have started
- await run.all_started()
+ pass

G3 _fastapi/exchange.py after the response is before its last message is sent
-         await send(message)
-         self.end()
+         self.end(); await send(message)

G3 _fastapi/exchange.py after the response is after the first part of its body
- message.get("more_body", False)
+ False

G3 _fastapi/exchange.py after the response is before its trailers
- message.get("trailers", False)
+ False

G3 _fastapi/exchange.py a file that the server sends is no last message
- case "http.response.pathsend":
+ case "http.response.nothing":

G3 _fastapi/exchange.py a response that a middleware makes does not start what comes before it
- run.reach("after_route")  # the
+ pass  # the

G4 _core/timing.py tasks start in the order that the event loop likes
- while queue[0] is not task:
+ while False:

G4 _core/timing.py the last task starts first
- self._queue.append(task)
+ self._queue.appendleft(task)

G4 _core/timing.py what waits for a timing point starts in the reverse order
- self._queue.extend(waiting)
+ self._queue.extend(reversed(waiting))

G5 _core/timing.py every task holds the response
- if task.config.hold_response and not self._responded
+ if not self._responded

G5 _core/supervisor.py the response waits until there is a thread for each of its tasks
- task.enter(RUNNING)
+ await threads.acquire(); threads.release(); task.enter(RUNNING)

G6 _fastapi/tasks.py a failed route drops nothing
- run.route_failed(error)
+ run.reach("after_route")

G6 _core/timing.py a failed route also drops what was to run even then
- and not task.config.even_if_failed
+

G6 _core/timing.py what fails after the route drops tasks, too
- () if self._has_come("after_route") else self._waiting.values()
+ self._waiting.values()

G6 _core/timing.py the line of a failed route is a warning
-                 INFO,
+                 30,

G6 _fastapi/tasks.py a client that leaves makes a WebSocket's route fail
- is_a(part, WebSocketDisconnect)
+ False

G6 _fastapi/tasks.py a client that leaves hides another failure
- return all(
+ return any(

G7 _core/timing.py late tasks never start
-                 del self._waiting[timing]
+                 pass

G7 _fastapi/exchange.py a request's first use of tasks after its response is lost
- if self.ended:
+ if False:

G7 _fastapi/exchange.py a route that runs after the response brings timing points back
- if self._is_responding:
+ if False:

G6 _fastapi/tasks.py all runs of routes in a request share their timing points
- if known is not None and known[0] is stack:
+ if known is not None:

G4 _fastapi/tasks.py each dependency of a route has tasks of its own
- if known is not None and known[0] is stack:
+ if False:

G3 _fastapi/exchange.py only the first run of a route is heard of when the response ends
-         for run in tuple(self._runs.values()):
-             run.reach_all()
+         for run in tuple(self._runs.values())[:1]:
+             run.reach_all()

G3 _fastapi/exchange.py a task that holds the response does not, if another one has
- is_held = True
-                     await
+ is_held = False
+                     await

G3 _fastapi/exchange.py a response that holds nothing yet has no end of its last message
- return self._send_last(send, message) if is_last else send(message)
+ self.ended |= is_last; return self._send_last(send, message) if is_last else send(message)

G3 _core/timing.py a start that is lost holds the response for ever
- for _ in range(_ROUNDS):
+ while True:

G7 _core/supervisor.py a schedule() call that fails half-way leaves a task that nobody starts
-             self.lifetime.mailbox.post(partial(self.cancel_unstarted, task))
+             pass

G8 _core/timing.py what waits for its timing point runs in the context of that moment
- task.context = supervisor.lifetime.copy_context()
+ task.context = None

G8 _core/supervisor.py a copied context is not used
- name=task.name, context=context
+ name=task.name, context=None

G8 _core/supervisor.py what threads schedule runs in the context of the event loop's mailbox
- task.context = self.lifetime.copy_context()
+ pass

G8 _core/lifetime.py what another event loop told AnyIO is believed
- context.run(variable.set, None)
+ pass

G9 _core/threads.py sync tasks take the threads of def endpoints
- limiter=CapacityLimiter(1)
+ limiter=None

G9 _core/call.py max_threads means nothing
- nullcontext() if self._threads is None else ThreadSlot(self._threads):
+ nullcontext():

G9 _core/lifetime.py one thread more than max_threads
- CapacityLimiter(max_threads)
+ CapacityLimiter(max_threads + 1)

G9 _core/call.py the coroutine that a sync callable returns is thrown away
- if not is_awaitable(self._result) or
+ if True or

G9 _core/function.py only coroutines are awaited
- if "__await__" in (members := _DICT.__get__(kind)):
+ if "cr_await" in (members := _DICT.__get__(kind)):

G9 _core/function.py a metaclass is asked whether a result can be awaited
-     for kind in _MRO.__get__(type(value)):
+     if hasattr(type(value), "__await__"):
+         return True
+     for kind in ():

G9 _core/function.py a coroutine of types.coroutine is a generator
- return bool(value.gi_code.co_flags & _ITERABLE_COROUTINE)
+ return False

G9 _core/function.py a function of types.coroutine is a generator function
- flags & (_COROUTINE | _ITERABLE_COROUTINE)
+ flags & _COROUTINE

G9 _core/call.py a task that a function returns is awaited
- or issubclass(type(self._result), Handle)
+

G9 _core/function.py a function that returns a generator succeeds
- return type(value) in (GeneratorType, AsyncGeneratorType)
+ return False

G9 _core/function.py mocks are asked what they are
- each.__class__ is type(each) and predicate(each)
+ predicate(each)

G9 _core/function.py a partial is a sync function, with a name of its own
- if issubclass(type(func), partial):
+ if False:

G10 _core/function.py a staticmethod hides a generator function
- (staticmethod, type(lru_cache(len)))
+ (type(lru_cache(len)),)

G10 _core/function.py a cache hides a generator function
- (staticmethod, type(lru_cache(len)))
+ (staticmethod,)

G10 _core/scheduler.py schedule() takes anything, and the task fails
- if task.is_async is None:
+ if False:

G10 _core/function.py async generator functions are taken for sync ones
-  or _is(inspect.isasyncgenfunction, func)
+

G10 _core/function.py the error shows the value
- kind = type_name(func)
+ kind = repr(func)

G11 _core/lifetime.py threads reach into the event loop
- return get_ident() == self._thread
+ return True

G11 _core/mailbox.py what a thread hands over while the event loop takes the rest waits for the next
-         self._is_woken = False
-         for _ in range(len(self._calls)):
-             call
+         import time; number = len(self._calls); time.sleep(0.001); self._is_woken = False
+         for _ in range(number):
+             call

G11 _core/mailbox.py a call that was broken off is lost
- call = self._calls[0]
+ call = self._calls.popleft(); self._calls.appendleft(int)

G11 _core/mailbox.py a call that fails is made for ever
- is_second, self._begun = self._begun is call, call
+ is_second = False

G11 _core/mailbox.py of what threads hand over at once, all but the first item waits for the next
- for _ in range(len(self._calls))
+ for _ in range(min(1, len(self._calls)))

G11 _core/mailbox.py a wake-up that fails is the last one
- self._is_woken = False
-             raise
+ raise

G11 _core/lifetime.py a call from a thread that fails is the last one
- except Exception as exc:
-                 log(ERROR, "a call
+ except LookupError as exc:
+                 log(ERROR, "a call

G11 _core/mailbox.py a hand-over under way when the runner closes meets a closed socket
- except OSError:
+ except LookupError:

G11 _core/supervisor.py cancel() runs in the thread that calls it
- self.lifetime.call(partial(self._cancel_here, task))
+ self._cancel_here(task)

G12 _core/supervisor.py a fault of ours gets out
-         except BaseException as exc:
-             self._break_off
+         except LookupError as exc:
+             self._break_off

G12 _core/outcome.py SystemExit in an error handler is taken for a fault of ours
- except BaseException as exc:
-         contain
+ except Exception as exc:
+         contain

G12 _core/instrument.py SystemExit in an instrument gets out
- except BaseException as exc:
+ except Exception as exc:

G12 _core/log.py a logging handler that raises ends the runner
-     except BaseException as exc:
-         pass_interrupt(exc)
-
-
- def _exc_info
+     except LookupError as exc:
+         pass_interrupt(exc)
+
+
+ def _exc_info

G12 _core/log.py a logging handler that exits ends the runner
-     except BaseException as exc:
-         pass_interrupt(exc)
-
-
- def _exc_info
+     except Exception as exc:
+         pass_interrupt(exc)
+
+
+ def _exc_info

G12 _core/interrupt.py a Ctrl+C does not pass with another error beside it
- any(is_a(part, KeyboardInterrupt)
+ all(is_a(part, KeyboardInterrupt)

G12 _core/interrupt.py each KeyboardInterrupt passes
- is_a(part, KeyboardInterrupt) and _is_real(part)
+ is_a(part, KeyboardInterrupt)

G12 _core/interrupt.py that of a worker process passes
- and not is_carried
+

G12 _core/interrupt.py that of a worker thread passes
- and not _is_of_thread(frames[-1])
+

G12 _core/interrupt.py that of an app in another thread passes
- current_thread() is main_thread() and
+ True and

G12 _core/function.py a Ctrl+C does not pass where the handler is an object
-             func = type(func).__call__
+             return None

G12 _core/group.py a task group that a task took down is not replaced
- is_lost = group.cancel_scope.cancel_called and not scope.cancel_called
+ is_lost = False

G12 _core/group.py an error in a group that is cancelled anyway gets out
- not (is_lost or error)
+ not is_lost

G12 _core/lost.py a task of a lost group that never began is unfinished for ever
- [*(before.keys() & _unbegun(registry).keys())]
+ []

G12 _core/group.py a group that cannot be held open is not replaced
- self._opened.is_set() and self.scope is not scope
+ True

G12 _core/group.py what fails in a group's clean-up takes the other one along
-             except Exception as exc:
-                 log
+             except LookupError as exc:
+                 log

G12 _core/event.py an event that was not set stays so
- for _ in range(2):
+ for _ in range(1):

G12 _core/timing.py of the tasks whose timing point has come, those after a failing start are lost
- self.supervisor.lifetime.post(partial(self._reach_again, timing, waiting))
+ pass

G12 _core/drain.py a drain that fails half-way ends there
- log(ERROR, "the shutdown failed half-way, and begins anew", error=exc)
+ raise

G12 _fastapi/lifespan.py a drain that fails in its end does not end the lifetime
- lifetime.end()  # which
+ pass  # which

G12 _core/lost.py a task that is about to begin counts as lost
- for _ in range(2):  # within
+ for _ in range(0):  # within

G12 _core/lost.py a task that was not let end is unfinished for ever
- if handle is not None and handle.status not in _ALIVE:
+ if False:

G12 _core/group.py a task that was not let end in the drain is unfinished for ever
-                 log(ERROR, "this broke a task of the event loop", error=error)
-                 with CancelScope(shield=True):
+                 log(ERROR, "this broke a task of the event loop", error=error)
+                 if False:

G9 _core/threads.py a thread that has ended lends its slot
- lender._is_taken and lender._threads
+ lender._threads

G12 _core/exception.py an exception's class is asked, which may raise
- issubclass(type(exc), kind)
+ isinstance(exc, kind)

G12 _core/exception.py an exception's traceback is asked for, which may raise
- traceback: TracebackType | None = _TRACEBACK.__get__(exc)
+ traceback: TracebackType | None = exc.__traceback__

G12 _core/exception.py an exception's context is set, which may raise
-         _CONTEXT.__set__(exc, context)
-         del exc
+         exc.__context__ = context
+         del exc

G12 _core/exception.py an exception is told its traceback, which may raise
- raise BaseException.with_traceback(exc, traceback)
+ raise exc.with_traceback(traceback)

G12 _core/exception.py a group is asked for its parts, which may raise
- parts += _EXCEPTIONS.__get__(part)
+ parts += part.exceptions

G12 _core/call.py a time limit writes to exceptions that pass it
-         with CancelScope(deadline=deadline):  # `fail_after()`
+         from anyio import fail_after
+         with fail_after(deadline - current_time()):  # `fail_after()`

G12 _core/log.py an error is asked whether it is true
- return type(error), error, traceback
+ return error or None

G13 _core/log.py an error that cannot be shown is not logged
-     except BaseException as exc:  # no
+     except LookupError as exc:  # no

G12 _core/function.py a name that raises gets out of schedule()
- with suppress(Exception):  # a proxy
+ with suppress():  # a proxy

G12 _core/function.py a function that raises when it is asked gets out of schedule()
-     except Exception:
-         return False
+     except ArithmeticError:
+         return False

G12 _core/function.py a name may be anything that claims to be a string
- str.__str__(text)
+ text

G13 _core/instrument.py a class's name forges a log line
- the instrument %r failed
+ the instrument %s failed

G12 _core/outcome.py a sync retry caller succeeds
- if _is_attempt(result):
-             result.close()
+ if False:
+             result.close()

G12 _core/timing.py a task that cannot be started keeps those after it from starting
- self.supervisor.spawn_late(task)
+ self.supervisor._start(task)

G9 _core/threads.py threads that wait for one more each wait for ever
- if lender is not None and lender._is_taken and lender._threads is threads:
+ if False:

G9 _core/supervisor.py a task from a thread takes no thread of its own
- thread_slot.set(None)
+ pass

G3 _core/timing.py a response in a cancelled scope does not start
-                 await cancel_shielded_checkpoint()
+                 await __import__("anyio").lowlevel.checkpoint()

G13 _core/outcome.py the log line has no traceback
- error=failure)
+ error=None)

G13 _core/supervisor.py a failure with an error handler is logged twice
- await handle_error(task, lifetime, scope)
+ await handle_error(task, lifetime, scope); log(40, "again")

G13 _core/task.py the repr shows the arguments
- {self._state.value}>
+ {self.args}>

G13 _core/function.py a callable object's name is its repr
- return type_name(func)
+ return repr(func)

G13 _core/call.py frames show the arguments of a sync function
- return self._func(*self._args
+ args = self._args; return self._func(*args

G13 _core/scheduler.py a refused call shows its arguments
- del func, args, kwargs
+ pass

G13 _core/outcome.py frames show the task's arguments
-     retry = chosen(task.config.retry)
-     del task
+     retry = chosen(task.config.retry)
+     args = task.args

G13 _core/call.py frames show what a sync function returned
- return await self._until(deadline, self._await_result())
+ return await self._until(deadline, self._result)

G14 _core/exception.py a cancellation in a group is a failure
- return BaseExceptionGroup.split(group, cancelled)[1]
+ return group

G14 _core/outcome.py each cancellation is worth a warning
- if not task.is_cancelled_by_us(scope):
+ if True:

G14 _core/supervisor.py what fails beside a cancellation has no error handler
-             except BaseException as exc:
-                 self._fail
+             except Exception as exc:
+                 self._fail

G14 _core/supervisor.py a cancelled task has failed
- task.enter(CANCELLED)
-         else:
+ task.enter(FAILED, exc)
+         else:

G15 _fastapi/lifespan.py the drain comes after the app's own shutdown code
- if message["type"] == "lifespan.shutdown":
+ if False:

G15 _fastapi/lifespan.py the server may end everything before the runner has ended
- self._held_back.append(message)
+ await self._send(message)

G15 _fastapi/lifespan.py startup.failed is held back, although the app waits for one more message
- startswith("lifespan.shutdown.")
+ endswith((".shutdown.complete", ".failed"))

G15 _fastapi/lifespan.py startup.failed is passed on before the drain
- if message["type"] == "lifespan.startup.failed":
+ if False:

G15 _fastapi/lifespan.py an app that asks for a message after its shutdown keeps the server waiting
- if self._held_back:  # an app
+ if False:  # an app

G15 _fastapi/lifespan.py the lifespan's exception reaches the server in a group
- raise error
+ raise BaseExceptionGroup("lifespan", [error])

G16 _core/supervisor.py endless loops are not told
- self.lifetime.stopping.set()
+ pass

G16 _core/drain.py no grace period
- current_time() + (self._grace_period if with_grace else 0)
+ current_time()

G16 _core/drain.py unshielded tasks are accepted after the grace period
- supervisor.enter(DRAINING)
+ pass

G16 _core/drain.py what has not started is not cancelled
-                 supervisor.cancel_unstarted(task)
+                 pass

G16 _core/drain.py whom a cancelled task held up is refused in the same instant
-         if tasks:
-             await self._settle()
+         pass

G16 _core/drain.py whom the last task held up is too late
-                 await self._settle()
-             elif
+                 pass
+             elif

G16 _core/drain.py shielded tasks wait for a timing point that does not come
- route.reach_all()
+ pass

G16 _fastapi/lifespan.py shielded tasks are waited for without limit
- math.inf if shield_timeout is None else shield_timeout
+ math.inf

G16 _core/drain.py not every shielded task that is cancelled is named
- names(tasks, at_most=len(tasks))
+ names(tasks)

G17 _core/lifetime.py shielded tasks are cancelled with the others
- group = self._shielded if shielded else self._unshielded
+ group = self._unshielded

G17 _core/timing.py a request that the server cuts off drops its shielded tasks
- and not (cut_off and task.config.shielded)
+

G17 _core/drain.py threads that run are not named while the shutdown waits for them
- await self._wait_for_tasks(math.inf)
+ pass

G17 _core/drain.py a shielded task from the last moment is cancelled
- await self._wait_for_tasks(self._deadline)  # what
+ pass  # what

G17 _core/supervisor.py a schedule() call under way in a thread is not waited for
- if not task.schedule_is_over or not
+ if not

G19 _core/registry.py what the drain refuses counts until the event loop has heard of it
- self.not_run[task] = None
+ self._cancelled -= 1; self.tasks[task] = None

G20 _core/outcome.py a call keeps its task and its arguments
-     finally:
-         call.clear()
-
-
- class
+     finally:
+         pass
+
+
+ class

G20 _core/outcome.py an error handler's call keeps its task
-         call.clear()
-         task.restore
+         task.restore

G20 _core/supervisor.py the frame of a task's life keeps it
- del task, route  # an
+ pass  # an

G20 _core/threads.py an error holds itself by its box
- error, self.error = self.error, None
+ error = self.error

G20 _core/task.py a waiter's frame keeps the task
-             yield from self._wait()
-             return self._outcome()
-         finally:
-             del self  # what is raised has this frame in its traceback
+             yield from self._wait()
+             return self._outcome()
+         finally:
+             pass

G20 _core/task.py what a task has raised keeps the task
- from self._exception
-         finally:
-             del self
+ from self._exception
+         finally:
+             pass

G20 _core/exception.py the frame that raises an exception again is kept by it
- del exc, traceback, context
+ pass

G20 _core/supervised.py contexts lead to their tasks
- running_task.set(ref(self))
+ running_task.set(lambda: self)

G20 _core/supervised.py a finished task keeps its request
- self.context = self.route = self.handle = None
+ self.context = None

G20 _core/supervised.py a finished task keeps its event-loop task
- self.context = self.route = self.handle = None
+ self.context = self.route = None

G20 _core/supervised.py a cancellation keeps the frames of who cancelled
- forget_cancellations(self._exception)
+ pass

G20 _core/outcome.py an error handler that raises the error again is kept by it
- task.restore_traceback()
+ pass

G20 _core/timing.py what was cancelled stays in its request's queue
- while queue and queue[-1].state is not PENDING:
+ while False:

G21 _core/supervised.py any state may follow any other one
- if not self._state.leads_to(state):
+ if False:

G21 _core/state.py the table of states says yes to everything
- return other._value_ in _TABLE[self._value_]
+ return True

G21 _core/supervisor.py a task that runs is cancelled when its schedule() call is broken off
- if task.state is PENDING:
-             task.enter(CANCELLED)
-             if
+ if True:
+             task._state = CANCELLED
+             if

G18 _core/supervisor.py the second lifespan is stopping from its start
- self.lifetime = Lifetime(self.lifetime.phase)
+ old = self.lifetime; self.lifetime = Lifetime(old.phase); self.lifetime.stopping = old.stopping

G18 _fastapi/lifespan.py a lifespan runs once only
- self._only_one.release()
+ pass

G18 _fastapi/lifespan.py two lifespans at the same time share a runner
- if not self._only_one.acquire(blocking=False):
+ if False:

G18 _fastapi/app.py an app that a middleware tries first keeps its hand on the request
- scope[APP_TASKS] = outer
+ pass

G3 _fastapi/app.py a scope that is used twice is watched once
- is not None and not outer.ended:
+ is not None:

G18 _fastapi/app.py a mounted app whose runner runs uses the outer app's
-         scope[APP_TASKS] = tasks
-     try:
+         pass
+     try:

G12 _core/waits.py nobody is in anybody's way
- return [waiter for waiter in waiters if waiter is not None]
+ return []

G12 _core/waits.py who has started something is in its way
- here = [each for each in waiters if each.runs_in_this_task()]
+ here = waiters

G12 _core/waits.py only a direct wait is refused
- for needed in waiter.needs():
+ for needed in waiter.needs() if waiter is found[0] else ():

G12 _core/waits.py a wait that was given up counts
- waiter.awaited = before
+ pass

G12 _core/supervised.py what a thread waits for is not its own
- slot.thread_id == thread
+ False

G12 _core/waits.py an endpoint that has called another one is in nobody's way
- routes.set((*alive, ref(run)))
+ routes.set((ref(run),))

G20 _core/waits.py a context keeps a trace of each run of a route
- [each for each in routes.get() if each() is not None]
+ routes.get()

G12 _core/timing.py what holds the response is in nobody's way
- (self, *response.holding())
+ (self,)

G12 _core/timing.py a def endpoint is not in the way of its own tasks
- code = code_of(self._endpoint)
+ code = None

G12 _fastapi/exchange.py a WebSocket has tasks that hold its response
- if self._is_responding or not self._has_response:
+ if self._is_responding:

G12 _core/event.py an event belongs to the event loop that looks first
- self._event: Event | None = None
+ self._event: Event | None = Event()

G9 _core/threads.py a slot is not given back in another context
- thread_slot.set(self._outer)  # not
+ assert thread_slot.get() is self  # not

G9 _core/threads.py a slot that an exception breaks off is taken for ever
- if self in self._limiter.statistics().borrowers:
+ if False:

G17 _core/threads.py a thread that its task is torn away from is on its own
- if not thread.begin():
-                 await thread.wait()
+ if False:
+                 await thread.wait()

G17 _fastapi/sigterm.py a SIGTERM in the drain ends the process
- signal.signal(signal.SIGTERM, _note)
+ pass

G17 _fastapi/sigterm.py a SIGTERM after the shutdown is nobody's
- if is_ours and not _holders:
+ if False:

G17 _fastapi/sigterm.py somebody else's handler is lost
-             if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
+             if True:

G16 _core/supervisor.py a task has finished before its error handler
- if not task.has_begun:
-             self.cancel_unstarted(task)
-         elif
+ if task.state is not RUNNING:
+             self.cancel_unstarted(task); self._end(task)
+         elif

G16 _core/drain.py the lifetime ends before the last schedule() call
- lifetime.cancel_shielded()
+ self._supervisor.lifetime.end()

G15 _fastapi/lifespan.py a server that does not hear of the start-up gets no drain
-         except BaseException:
-             await self._drain_whatever_happens()
-             raise
-
-     async def pass_on
+         except BaseException:
+             raise
+
+     async def pass_on

G18 _fastapi/app.py a mounted app that is called late hides the outer app's runner
- if tasks.supervisor.admits_tasks or APP_TASKS not in scope:
+ if True:

G20 _core/supervisor.py who watches for a time is told for ever
- self.instruments = tuple(left)
+ pass

G17 _core/config.py an option that is not set hides that of the app
- getattr(self, name) if value is None else value
+ value

G20 _fastapi/exchange.py each run of a route is kept as long as its request
- self._runs = WeakValueDictionary(self._runs)
+ pass

G3 _fastapi/app.py OpenTelemetry takes the library off with itself
- ("build_middleware_stack", _ORIGINAL_BUILD)
+ ("build_middleware_stack",)

G19 _core/registry.py a task that waits runs
- waiting=unfinished - self._running
+ waiting=0

G19 _core/registry.py one task more than max_tasks
- len(self.tasks) >= self._max_tasks
+ len(self.tasks) > self._max_tasks

G19 _core/registry.py no limit
- math.inf if max_tasks is None else max_tasks
+ math.inf

G11 _core/waits.py an endpoint that has called another is in nobody's way
- routes.set((*alive, ref(run)))
+ routes.set((ref(run),))

G11 _core/runner.py join() waits only for the tasks that there are when it begins
- with RecordedWait(waiters, _Unfinished(registry))
+ with RecordedWait(waiters, registry.list_tasks())

G11 _core/timing.py who has the id of a route's task is that
- self._coro = _current_coro()
+ number = get_current_task().id
+         self._coro = lambda: get_current_task().coro if get_current_task().id == number else None

G11 _core/supervised.py every thread that waits is a sync task's own
- slot.thread_id != 0 and slot.thread_id == thread
+ thread != 0

G11 _core/timing.py every thread that waits is a def endpoint's own
- any(frame.f_code is code for frame in stack)
+ bool(thread)

G16 _core/runner.py join() in another event loop disturbs the shutdown
- if not registry.is_idle and not self._supervisor.is_on_loop_thread:
+ if False:

G11 _core/runner.py join() in another event loop is refused when there is nothing to wait for
- if not registry.is_idle and not self._supervisor.is_on_loop_thread:
+ if not self._supervisor.is_on_loop_thread:

G12 _core/interrupt.py a handler of SIGINT that calls another one raises no Ctrl+C
- any(frame.f_code is code for frame in frames)
+ frames[-1].f_code is code

G12 _core/interrupt.py a process pool's KeyboardInterrupt is a Ctrl+C when a future carries it
- is_carried |= cause_of(exc) is not None
+ pass

G11 _core/lifetime.py what a signal's handler schedules while Trio's loop is at work is lost
- if get_ident() != self._thread or not (in_task or _is_in_task()):
+ if get_ident() != self._thread:

G11 _core/scheduler.py every schedule() call is taken for one in a task of the event loop
- in_task = caller is not None and bool(caller.f_code.co_flags & CO_COROUTINE)
+ in_task = True

G11 _core/scheduler.py a thread that begins with schedule() cannot
- caller is not None and bool(caller.f_code.co_flags & CO_COROUTINE)
+ bool(caller.f_code.co_flags & CO_COROUTINE)

G14 _core/lifetime.py a task that a signal's handler cancels goes on until something else happens
- if self.is_on_loop_thread and _is_in_task():
+ if self.is_on_loop_thread:

G17 _fastapi/sigterm.py the app that ends first takes SIGTERM's protection from the others
- if is_ours and not _holders:
+ if is_ours:

G17 _fastapi/lifespan.py a SIGTERM in the drain of a start-up that has failed ends the process
-     async def _drain_whatever_happens(self, *, with_grace: bool = False) -> None:
-         self.sigterm.take()
+     async def _drain_whatever_happens(self, *, with_grace: bool = False) -> None:
+         with_grace and self.sigterm.take()

G17 _fastapi/sigterm.py children that are forked in a shutdown cannot be terminated
- if os.getpid() != self._process:
+ if False:

G7 _core/lifetime.py what a forked child schedules is lost
- lifetime.phase, lifetime.is_forked = CLOSED, True
+ pass

G11 _core/registry.py garbage that schedules breaks the list of tasks
-             tasks = [*self.tasks]  # at once, where `tuple()` may have to collect garbage meanwhile
-         return tuple(tasks)
+             return tuple(self.tasks)

G16 testing.py a cancellation ends with the app that it shuts down
-             raise cancelled
+             pass

G16 testing.py a start-up that ends by a cancellation has succeeded
-         except BaseException as exc:
-             self.errors.append(exc)
-             if not
+         except Exception as exc:
+             self.errors.append(exc)
+             if not

G16 testing.py a start-up that says that it has failed has succeeded
- if message["type"] == "lifespan.startup.complete":
+ if True:

G7 _core/timing.py what is scheduled as a timing point comes is lost
-                 # First: what garbage schedules meanwhile comes after that.
-                 del self._waiting[timing]
-                 self._queue.extend(waiting)
+                 waiting = [*waiting]
+                 self._queue.extend(waiting)
+                 del self._waiting[timing]

G16 testing.py a start-up that says that it has failed raises nothing
- if self._failures and not self.errors:
+ if False:

G22 _core/attempt.py dependencies are closed in the order they were opened in
- await self._close_one(exits.pop())
+ await self._close_one(exits.pop(0))

G22 _core/attempt.py what is of function scope is closed last
- for exits in reversed(self._exits):
+ for exits in self._exits:

G22 _core/attempt.py what was opened is not closed when the call fails
- if any(self._exits):
+ if any(self._exits) and self._error is None:

G22 _core/attempt.py a dependency does not hear of the error
- await exit_(error)
+ await exit_(None)

G22 _core/attempt.py a timeout is a cancellation to dependencies
- return late(self.task.name, self._timeout)
+ return exc

G22 _core/attempt.py a cancelled task whose time is up as well has failed
- and not self.task.is_cancelled_by_us(self._scope)
+ and True

G22 _core/attempt.py a call begins whose time was up when it was to
-             self._limit.cancel()
+             pass

G22 _core/attempt.py a cancelled call begins all the same
- await checkpoint_if_cancelled()
+ pass

G22 _core/attempt.py a sync task has its dependencies opened before it has a thread
- nullcontext() if is_async else ThreadSlot(self._place.threads):
+ nullcontext():

G22 _core/attempt.py dependencies take threads of their own
-         async with ThreadSlot(self._place.threads):
-             self._limit.deadline = current_time() + left
+         if True:
+             self._limit.deadline = current_time() + left

G22 _core/attempt.py the first error stays, whatever a dependency raises
-             self._error = exc
-         finally:
+             self._error = self._error or exc
+         finally:

G22 _core/attempt.py an error keeps the traceback of the dependencies that it passed
-             if exc is error:
-                 BaseException
+             if False:
+                 BaseException

G20 _core/attempt.py an attempt keeps what it was made of
-         finally:
-             self._clear()
+         finally:
+             pass

G22 _core/attempt.py a task that raises GeneratorExit closes nothing
- return get_current_task().id != self._loop_task
+ return True

G22 _core/attempt.py a dependency's wait for a thread uses up the timeout
- self._limit.deadline = math.inf  # waiting
+ pass  # waiting

G22 _core/attempt.py a task that was cancelled in a dependency's thread begins
- if is_async and self._timeout is None and dependencies.are_only_awaited:
+ if is_async and self._timeout is None and not any(self._exits):

G22 _core/attempt.py the shutdown complains of clean-ups that are not the tasks' own
- if not self.task.is_finished:
+ if True:

G22 _core/cleanups.py nobody hears of a clean-up that has no time
- if not scope.shield:
+ if False:

G22 _core/cleanups.py a clean-up is cancelled with its task
- scope.shield = self._are_shielded[task.config.shielded]
+ pass

G22 _core/cleanups.py a clean-up that begins after its time has no end
-         self._are_shielded[shielded] = False
+         pass

G22 _core/cleanups.py a clean-up that hangs keeps the shutdown from ending
-             scope.shield = False
+             pass

G22 _core/cleanups.py clean-ups of all tasks end at the same time
-             if task.config.shielded is shielded
+             if True

G22 _core/drain.py clean-ups have no limit where shielded tasks have none
-             self._cancel_clean_ups()
-         await
+             pass
+         await

G22 _core/drain.py clean-ups of shielded tasks have no end
- lifetime.clean_ups.unshield(shielded=True)
+ pass

G22 _core/outcome.py a task that is called again gets no dependencies
- if self._task.dependencies is None:
+ if self._task.dependencies is None or self._scope is None:

G22 _core/supervised.py a task that has ended is the current one
- or task.is_finished:
+ or False:

G22 _fastapi/dependencies.py overrides are looked up when the task runs
- Injection(Plan(found.name, wanted, {**self.app.dependency_overrides}), self)
+ Injection(Plan(found.name, wanted, {}), self)

G22 _fastapi/dependencies.py a decorated function has the dependencies of what it wraps, and never others
- if found is not None and found.is_of(func):
+ if found is not None:

G22 _fastapi/parameters.py the object of a method counts as no argument
- return Layer(func.__func__, 1)
+ return Layer(func.__func__)

G22 _fastapi/dependencies.py what a partial has by name is opened as well
- names.update(layer.names)
+ pass

G22 _fastapi/dependencies.py one plan serves all calls of a function
- names = tuple([each.name for each in wanted])
+ names = ()

G22 _fastapi/dependencies.py what cannot be known yet is known for ever
- return self._called() is called and not has_new_names(called, self._names)
+ return self._called() is called

G22 _fastapi/dependencies.py a function whose names come later has no dependencies
- if names is None or (names != _UNKNOWN and not has_new_names(func, names)):
+ if names is None or names != _UNKNOWN:

G22 _fastapi/dependencies.py a function that cannot be read has no dependencies
- if _expects_something(task.func):
+ if False:

G22 _fastapi/dependencies.py a positional-only parameter is filled with the wrong value
- if each.is_positional_only and each.position != count:
+ if False:

G22 _fastapi/dependencies.py a scheduled function cannot be pickled any more
- return type(None), ()  # whoever
+ return object.__reduce__(self)  # whoever

G20 _fastapi/dependencies.py what is known of a function keeps it
- self._called = ref(called)
+ self._called = lambda: called

G20 _fastapi/dependencies.py functions without dependencies are kept
- _without_dependencies[ref(func, _without_dependencies.pop)] = names
+ _without_dependencies[ref(func, lambda _: func)] = names

G20 _fastapi/dependencies.py of functions that have gone the references are kept
- _without_dependencies[ref(func, _without_dependencies.pop)] = names
+ _without_dependencies[ref(func)] = names

G20 _fastapi/plan.py the values of dependencies are kept by errors
-             resolution.clear()
+             pass

G22 _fastapi/dependencies.py what a partial has by name is a positional-only dependency's value
- and (each.is_positional_only or each.name not in names)
+ and each.name not in names

G13 _fastapi/parameters.py a refused call shows what a partial has
- tuple(func.keywords))
+ func.keywords)

G22 _core/attempt.py an error does not tell which one it came after
- add_context(exc, error)
+ pass

G22 _fastapi/resolution.py a closing waits for those who wait for it
- await attempt.close_in_thread(
+ await attempt.call_in_thread(

G22 _fastapi/plan.py an override has a cache of its own
- if func is not original:  # whose
+ if False:  # whose

G22 _fastapi/parameters.py what is about validation is about requests
- if issubclass(type(each), _MARKS)]
+ if is_mark(each)]

G22 _fastapi/parameters.py a decorated object's annotations are about its decorator's module
- getattr(inspect.unwrap(func), "__globals__", {})
+ getattr(func, "__globals__", {})

G22 _fastapi/injected.py what a dependency writes to the state goes to the next task
- State(dict(state))
+ State(state)

G22 _fastapi/parameters.py a stack that is used up is taken for a name that is missing
-     except RecursionError:  # which
+     except ZeroDivisionError:  # which

G22 _fastapi/dependencies.py near the end of the stack a function has no dependencies
-         except RecursionError:
-             raise
-         except
+         except

G22 _fastapi/parameters.py one annotation that cannot be evaluated hides the others
-     except Exception:
-         return _UNKNOWN
+     except ZeroDivisionError:
+         return _UNKNOWN

G22 _fastapi/parameters.py a function that cannot be unwrapped asks for nothing
-         if type(func) is FunctionType:
-             raise
+         pass

G22 _fastapi/parameters.py the last mark of an annotation does not count
- return kind, marks[-1] if marks else None
+ return kind, marks[0] if marks else None

G22 _fastapi/plan.py a cached dependency is opened for each that asks for it
- if key in self._known and not again:
+ if False:

G22 _fastapi/plan.py use_cache=False means nothing
- again=not mark.use_cache
+ again=False

G22 _fastapi/plan.py scopes make no difference to the cache
- tuple(sorted(deeper.scopes)) if uses_scopes else (),
+ (),

G22 _fastapi/plan.py scopes make a difference to what does not use them
- tuple(sorted(deeper.scopes)) if uses_scopes else (),
+ tuple(sorted(deeper.scopes)),

G22 _fastapi/plan.py a chain that leads back to itself is followed to the end of the stack
- if any(each is func for each in chain.funcs[:-1]):
+ if False:

G22 _fastapi/resolution.py a sync generator is open for ever if it takes long to be closed
- with CancelScope(shield=True):
+ with CancelScope():

G22 _fastapi/resolution.py a close that is torn off before it has a thread is forgotten
-             while opened:
-                 try:
+             for _ in opened[:]:
+                 try:

G22 _fastapi/resolution.py a StopAsyncIteration is replaced
-             return  # Python has replaced it
+             pass

G22 _fastapi/resolution.py a generator that yields twice is left as it is
-     await generator.aclose()
-     raise
+     return
+     raise

G22 _fastapi/resolution.py max_concurrency means nothing for generators
- await semaphore.acquire()
+ semaphore = Semaphore(1, max_value=99)

G22 _fastapi/resolution.py every task has tasks of a request that has ended
- if not isinstance(route, RouteRun):
+ if True:

G23 _core/identity.py an id can be told from another one
- return blake2b(text, key=self.key, digest_size=16).hexdigest()
+ return "0" * 32

G23 _core/identity.py an id is signed without a secret
- blake2b(text, key=self.key, digest_size=16)
+ blake2b(text, digest_size=16)

G23 _core/identity.py a forked process goes on with its parent's ids
- os.register_at_fork(after_in_child=_begin_in_child)
+ pass

G23 _core/identity.py an id of an earlier process is taken for one of this
- return is_ours and epoch == process.epoch
+ return is_ours

G23 _core/identity.py an id that is no text is an error
- compare_digest(signature.encode("utf-8", "replace")
+ compare_digest(signature.encode()

G23 _core/task.py each time a task is asked, it has another id
-             if self._id is None:
-                 self._id = self
+             if True:
+                 self._id = self

G23 _core/registry.py a task that has finished is found
-                 del self._by_id[id_]
+                 pass

G23 _core/registry.py the ids of tasks that have finished pile up
- self._ids.pop(task, None)
+ self._ids.get(task)

G23 _core/registry.py a task that has finished can be found when its id is asked for
-             if self.has(task):
-                 self._ids
+             if True:
+                 self._ids

G23 _core/progress.py instruments hear of each step
- self._is_told = now >= self._next
+ self._is_told = True

G23 _core/supervised.py the last progress is not told
- self._progress.flush()
+ pass

G23 _core/progress.py a progress that was told is told again at the end
-         if not self._is_told:
+         if True:

G23 _core/supervised.py progress is told of a task that has finished
-         if not self._is_finished:
-             self._owner.tell_progress(self)
+         self._owner.tell_progress(self)

G23 _core/progress.py progress may be anything
- if not issubclass(kind, Real):
+ if False:

G23 _core/progress.py progress may be no number
- if not -sys.float_info.max <= value <= sys.float_info.max:
+ if False:

G23 _core/task.py a task that has an id has none
- return self._id is not None
+ return False

G23 _core/track.py an item counts before it is done
-         yield item
-         if progress is not None:
-             progress.done = number
+         if progress is not None:
+             progress.done = number
+         yield item

G23 _core/track.py track() begins where the last one ended
- progress.done = 0
+ pass

G23 _core/config.py the labels of the call replace the app's
- {**self.labels, **other.labels}
+ {**other.labels}

G23 _core/config.py labels can be changed afterwards
- object.__setattr__(self, "labels", MappingProxyType({**self.labels}))
+ pass

G23 _core/supervised.py wait_from_thread() blocks the event loop
- if self._owner.is_on_loop_thread:
+ if False:

G23 _core/supervised.py wait_from_thread() waits for the code that calls it
-         waiters = waiters_in_this_thread()
-         self._check_waiters(waiters)
+         waiters = waiters_in_this_thread()

G23 _core/supervised.py nobody wakes the threads that wait
- self._ended_in_threads.set()
+ pass

G23 _core/task.py the value of a task that runs is None
- if not self._is_finished:
+ if False:

G13 _core/task.py who asks for the return value of a failed task finds the task in its traceback
- await it, or wait()")
-             return self._outcome()
-         finally:
-             del self
+ await it, or wait()")
+             return self._outcome()
+         finally:
+             pass

G23 _core/supervised.py a task that the drain has cancelled is not cancelling
- handle.status is TaskHandle.Status.CANCELLING or self._owner.has_cancelled(self)
+ handle.status is TaskHandle.Status.CANCELLING

G23 _core/lifetime.py shielded tasks are cancelling when the others are
- (self._shielded if shielded else self._unshielded).scope.cancel_called
+ self._unshielded.scope.cancel_called

G23 _core/runner.py an instrument does not know its runner
- instrument.attached(self)
+ pass

G23 _core/runner.py an instrument that watches for a time does not know its runner
- guarded.attached(self)
+ pass

G23 jobs/history.py a flood evicts jobs
-             if facts.id is not None:
+             if False:

G23 jobs/history.py a flood evicts failed tasks
- (self._others if facts.trace is None else self._failed)
+ self._others

G23 jobs/history.py a history has no end
-         if len(self._jobs) > self._max_tasks:
+         if False:

G23 jobs/history.py what is old is shown
- time() - notes.finished <= self._max_age
+ True

G23 jobs/history.py what is old is kept
-             self._drop_old()
+             pass

G20 jobs/history.py a history keeps tasks
-         self._notes[task] = Notes(time())
+         self._notes[task] = Notes(time()); self.__dict__.setdefault("kept", []).append(task)

G20 jobs/traces.py a record keeps frames
- frames.append((traceback.tb_frame.f_code,
+ globals().setdefault("kept", []).append(traceback.tb_frame); frames.append((traceback.tb_frame.f_code,

G23 jobs/history.py results are kept unasked
- if self.keeps_results and facts.state is TaskState.SUCCEEDED:
+ if facts.state is TaskState.SUCCEEDED:

G23 jobs/history.py the oldest come first
- for notes in reversed(rings)
+ for notes in rings

G23 jobs/history.py a task whose id was asked for late is unknown
- return self._describe(task) if notes.facts is None else self._promote(id_, notes)
+ return None

G23 jobs/history.py a job is remembered twice
-                 ring.remove(notes)
+                 pass

G23 jobs/history.py a task that two ways tell of is remembered twice
- if notes.facts is not None:  # it is told twice
+ if False:  # it is told twice

G23 jobs/history.py a history mixes the tasks of two apps
- if self._runner is not None and self._runner is not runner:
+ if False:

G23 jobs/traces.py an exception that cannot be told ends the history
-     except BaseException:
-         return "(what
+     except ZeroDivisionError:
+         return "(what

G23 jobs/traces.py a deep recursion is kept whole
- deque(maxlen=MAX_FRAMES)
+ deque()

G23 jobs/traces.py a long message is kept whole
- slice(MAX_TEXT)
+ slice(None)

G23 jobs/traces.py exceptions that lead to each other are followed for ever
- id(exc) in seen or len(seen)
+ len(seen)

G23 jobs/router.py what an exception says is shown unasked
-         if self._error_messages:
+         if True:

G23 jobs/router.py caches keep answers
- MutableHeaders(scope=message)["Cache-Control"] = "no-store"
+ pass

G23 jobs/router.py caches keep what the app does not allow
- exc.headers = {**(exc.headers or {}), "Cache-Control": "no-store"}
+ pass

G23 jobs/router.py whoever looks may cancel
-     if cancel:
+     if True:

G23 jobs/router.py a client may wait for long
- MAX_WAIT = 0.9  # seconds
+ MAX_WAIT = 90  # seconds

G23 jobs/router.py who waits gets what was true before
-                 await task.wait()
+                 await __import__("anyio").sleep_forever()

G23 jobs/router.py a job that asks about itself is an error
- , suppress(FastAPITasksError):
+ :

G23 jobs/router.py what was forgotten was never there
- if self._history.runner.has_made(id_):
+ if False:

G23 jobs/router.py clients of finished jobs ask again
-         if record.finished_at is None:
+         if True:

G23 jobs/router.py there is a result although none is kept
-         if self._history.keeps_results:
+         if True:

G23 jobs/router.py what cannot be shown is said each time
-             if record not in self._not_json:
+             if True:

G23 jobs/router.py a result that JSON cannot have is an error
- json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
+ pass

G23 jobs/router.py half a surrogate pair is an error
- return text.encode("utf-8", "backslashreplace").decode()
+ return text

G24 _core/times.py rounds drift by what the event loop is late
- self._due = self._begin + number * self._period +
+ self._due = (current_time() + self._period if number else self._begin) +

G24 _core/times.py jitter adds up
- return self._plan(self._number + self.missed + 1)
+ self._begin = self._due - self._number * self._period; return self._plan(self._number + self.missed + 1)

G24 _core/times.py what has passed while the event loop was busy is made up for
- self.missed = int((current_time() - self._due) // self._period)
+ self.missed = 0

G24 _core/times.py the first round comes after a period in any case
- self._begin, self.missed = current_time() + self._first, 0
+ self._begin, self.missed = current_time() + self._period, 0

G24 _core/times.py a second lifespan goes on counting
-         return self._plan(0)
+         return self._plan(self._number)

G24 _core/times.py a function is asked with the last time of another lifespan
- self._last, self._planned, self._is_behind = None, _BEFORE_ALL, False
+ pass

G24 _core/times.py a time without a time zone is one of this machine's
- if following.utcoffset() is None:
+ if False:

G24 _core/times.py a function may return anything
- if not isinstance(following, datetime):
+ if False:

G24 _core/times.py a function may go back in time
- if planned <= self._planned:
+ if False:

G24 _core/times.py each time that has passed is a round
- if self._planned > wall_clock():
+ if True:

G24 _core/times.py what has passed is not counted
- self.missed, self._is_behind = 1, True  # all together are one
+ self._is_behind = True

G24 _core/times.py each turn of the event loop counts what has passed anew
- if not self._is_behind:
+ if True:

G24 _core/times.py what has passed later is not counted any more
- self._is_behind = False
-                 self._due
+ self._due

G24 _core/times.py a clock catches up in one go
- for _ in range(CALLS_AT_MOST):
+ for _ in range(10**6):

G24 _core/times.py a clock does not catch up
- return NOT_YET
+ return NEVER

G24 _core/times.py a clock sleeps until its time, whatever becomes of the wall clock
- return None if left <= 0 else current_time() + min(left, LOOK_AT_MOST)
+ return None if left <= 0 else current_time() + left

G24 _core/times.py a round comes at the first look
- return None if left <= 0 else current_time() + min(left, LOOK_AT_MOST)
+ return None if left <= 60 else current_time() + min(left, LOOK_AT_MOST)

G24 _core/times.py a function gets its times back in UTC
- self._last, self._zone = in_utc.astimezone(following.tzinfo), following.tzinfo
+ self._last, self._zone = in_utc, UTC

G24 _core/times.py a time that the zone leaves out comes back as it is
- self._last, self._zone = in_utc.astimezone(following.tzinfo), following.tzinfo
+ self._last, self._zone = following, following.tzinfo

G24 _core/times.py times have the class of the function's
- planned = _exact(in_utc)
+ planned = in_utc

G24 _core/times.py a function has no jitter
- self._due = self._planned + timedelta(seconds=uniform(0, self._jitter))
+ self._due = self._planned

G24 _core/times.py next_at does not know of the jitter
- return self._due.astimezone(self._zone)
+ return self._planned.astimezone(self._zone)

G24 _core/timers.py a timer that comes first is not noticed
- if when < self._next:
+ if False:

G24 _core/timers.py what was unset is called all the same
- if self._times.pop(call, None) is not None:  # unless one before has unset it
+ if self._times.pop(call, None) or True:

G24 _core/lifetime.py timers are looked at when the mailbox has something
- with self.timers.until_next():
-                         await self.mailbox.wait()
+ await self.mailbox.wait()

G24 _core/lifetime.py a clock that is always due keeps threads from being heard
- with self.timers.until_next():
-                         await self.mailbox.wait()
-                     self.mailbox.make_calls()
+ with self.timers.until_next():
+                         await self.mailbox.wait()
+                         self.mailbox.make_calls()

G24 _core/clock.py two rounds at once
- if self.last is not None and not self.last.finished.is_set():
+ if False:

G24 _core/clock.py a round ends before its error handler
- if self.last is not None and not self.last.finished.is_set():
+ if self.last is not None and not self.last.state.is_final:

G24 _core/periodic.py all rounds share a context
- return self._context.copy().run(self._schedule)
+ return self._context.run(self._schedule)

G24 _core/periodic.py rounds have the context of the event loop
- return self._context.copy().run(self._schedule)
+ return self._schedule()

G24 _core/periodic.py rounds have the context of the loop that they were made in
- self._context = neutral_context()
+ import contextvars; self._context = contextvars.copy_context()

G24 _core/clock.py a full app is an error of the round's
- except TooManyTasksError as exc:
-             self._skip(1, str(exc))
+ except ZeroDivisionError as exc:
+             self._skip(1, str(exc))

G24 _core/clock.py a round that cannot be scheduled is not counted
-             self.skipped += 1
-             log(ERROR
+             log(ERROR

G24 _core/clock.py what a round's schedule() call raises ends the clock
- except BaseException as exc:
-             pass_interrupt(exc)
-             self.skipped += 1
+ except ArithmeticError as exc:
+             pass_interrupt(exc)
+             self.skipped += 1

G24 _core/clock.py each skip has a line
- if not self._is_skipping:
+ if True:

G24 _core/clock.py only the first row of skips has a line
-             self.rounds += 1
-             self._is_skipping = False
+             self.rounds += 1

G24 _core/clock.py what a period function raises gets out
- except BaseException as exc:
-             pass_interrupt(exc)
-             log(ERROR, "clock
+ except ZeroDivisionError as exc:
+             pass_interrupt(exc)
+             log(ERROR, "clock

G24 _core/clock.py a clock whose function has failed does not end
-             log(ERROR, "clock %r ends: its next round cannot be planned", self.name, error=exc)
-             self.end()
+             log(ERROR, "clock %r ends: its next round cannot be planned", self.name, error=exc)

G24 _core/clock.py what has passed before the end is not counted
-         finally:
-             if times.missed:
+         except ZeroDivisionError: pass
+         else:
+             if times.missed:

G24 _core/clock.py a function that ends its clock does not end it
- if self._lifetime is None:  # ended meanwhile
+ if False:  # ended meanwhile

G24 _core/times.py a fixed rate has no jitter
- number * self._period + uniform(0, self._jitter)
+ number * self._period

G24 _core/clock.py an ended clock says when it comes
- self._lifetime = self.next_at = None
+ self._lifetime = None

G24 _core/clock.py an ended clock goes on
- lifetime.timers.unset(call)
+ pass

G24 _core/clock.py those who wait for a clock's end wait for ever
- self._ended.set()  # before others see that it does not run
+ pass

G24 _core/clock.py a clock that is cancelled while it ends is waited for
- self._ended.set()  # before others see that it does not run
-             self._lifetime = self.next_at = None
-             self._on_end(self)
+ self._lifetime = self.next_at = None
+             self._on_end(self)
+             self._ended.set()

G24 _core/clock.py a cancelled clock that never began is waited for
- self._ended.set()  # nobody waits for that
+ pass

G24 _core/clock.py whoever awaits a clock that has not begun waits
- if self._lifetime is None:
-                 raise
+ if False:
+                 raise

G24 _core/clock.py a clock begins once more
- if self.next_at is None:
+ if True:

G24 _core/clock.py a clock that has ended begins
- if work is None or lifetime is None:
+ if work is None:

G20 _core/clock.py a cancelled clock keeps its functions
- self._work = None
+ pass

G24 _core/clocks.py a clock of a lifespan begins with the next one, too
- if not (is_late := self._are_stopped):
+ self._lasting[clock] = None
+             if not (is_late := self._are_stopped):

G24 _core/clocks.py a clock made at import time runs in one lifespan
- clocks = [*self._lasting]
+ clocks = [*self._lasting]; self._lasting.clear()

G24 _core/clocks.py a clock begins under the lock
- self._enter([clock], self._lifetime)
+ self._enter([clock], self._lifetime); clock.begin()

G24 _core/clocks.py a clock begins in the shutdown
- self._are_stopped = True
+ self._are_stopped = False

G24 _core/clocks.py a clock begins although the shutdown has begun
- if self._lifetime is not None and not self._are_stopped:
+ if self._lifetime is not None:

G24 _core/clocks.py a clock that does not begin is not spoken of
- log(WARNING, "clock %r does not begin: the app is shutting down", clock.name)
+ pass

G24 _core/clocks.py a cancelled clock begins with the next lifespan
- self._lasting.pop(clock, None)
+ pass

G20 _core/clocks.py clocks that have ended are kept
- if clock not in self._lasting:
+ if False:

G24 _core/supervisor.py clocks go on in the shutdown
-         self.lifetime.stopping.set()
-         self.clocks.stop()
+         self.lifetime.stopping.set()

G24 _fastapi/lifespan.py clocks begin before the app has started
- if message["type"] == "lifespan.startup.failed":
+ self._supervisor.clocks.begin()
+         if message["type"] == "lifespan.startup.failed":

G24 _fastapi/lifespan.py clocks made behind the yield begin with the next lifespan
- self._supervisor.clocks.close()
+ pass

G24 _core/supervisor.py clocks made behind the yield are kept for later
-         self.enter(CLOSED)
-         self.clocks.stop()
+         self.enter(CLOSED)
+         self.clocks.stop()
+         self.clocks.close()

G24 _core/periodic.py a clock drops its options
- self._config.merge(options), self._times
+ self._config, self._times

G24 _core/periodic.py what a task cannot be is found at the first round
- if model.is_async is None:
+ if False:

G24 _core/periodic.py what a task cannot have is found at the first round
- supervisor.find_dependencies(model)
+ pass

G24 _core/periodic.py a clock begins in a forked process
- supervisor.lifetime.refuse_if_forked()
+ pass

G24 _core/period.py a period of nothing
- if period < SHORTEST:
+ if False:

G24 _core/period.py jitter beyond the period
- if jitter > period:
+ if False:

G24 _core/period.py a period beyond the calendar
- if not is_seconds(value) or not _is_in_the_calendar(value):
+ if not is_seconds(value):

G24 _core/period.py an async period function
- if is_async(period) is not False:
+ if False:

G13 _core/periodic.py the frame of schedule() shows arguments
- del func, args, kwargs  # no traceback of what follows shows them (G13)
-         if model
+ if model
"""
MUTANTS = [parse(text) for text in TEXT.strip().split("\n\n")]
