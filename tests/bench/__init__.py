"""The benchmark: `make benchmark`, or `python -m tests.bench [--only NAME] [--seconds N] [--smoke] [--markdown]`.

How the figures are obtained
- Ratios, not speeds. Machines differ and are noisy; what is asked for is a share of what the bare library does with
  the same bytes on the same machine in the same run. Both sides take turns (A B A B …), a ratio is taken within each
  turn, and the median of the turns is what counts; the smallest and the largest are printed beside it.
- Requests per CPU-second of the server process: its user + system time from /proc/PID/stat around each window. The
  server under test has one core to itself (sched_setaffinity); the load generator, the store and the sink share
  another, so that none of them slows or interrupts what is measured. The store's CPU is printed beside it.
- The load is a closed loop: 64 keep-alive connections, no pipelining, each sends its next request when its answer has
  come. The generator is a plain epoll loop over prepared bytes, several times as fast as what it measures; how busy
  it was is printed, and so is the server's share of its core. Anything but a 200 is an error and is printed; a run
  with errors, or whose messages are not all found afterwards, exits 1.

What is compared
- baseline    an aiohttp handler on uvloop that reads the body, decodes it with msgspec into the same Structs and
              answers a constant JSON of our size. No store, no log.
- accept      `POST /api/v1/message` over 1,000 keys whose batches never fill (max_size 1000, wait 3600 s). Afterwards
              the sizes of all open buffers must add up to the answers given.
- pipeline    the same with max_size 5, to a sink on the other core; a message counts when its delivery is complete,
              and the CPU is read when the last one has been settled.
- bare client one aiohttp ClientSession that posts the same bytes to the same sink at the same concurrency.
- deliveries  batches of one message wait because the sink holds its answers; then it lets go, and what the node needs
              to post and settle all of them is measured. What was under way at that moment is not counted.
- memory      growth of the resident size over 100,000 keys with one small message each, once the replay tail has
              expired, divided by the keys. Meanwhile a prober asks /livez every 5 ms: its slowest answer is the stall,
              less the time in which the kernel let the prober or the node wait for a core.
- lateness    500 messages/s at a fixed pace (open loop), wait_time 1.0 … 1.9 s: the time at which the sink had the
              batch minus (the time at which its first message was acknowledged + wait_time).
- scaling     the pipeline through three nodes on one store against one node: the CPU of all nodes together for each
              message, the same messages, each sent to whichever node is free; partitions have settled before.
- cache       keys and values of 200 bytes, 1,000 of them, put there by a foreign client. GETs beside a handler that
              answers a constant, writes beside one that decodes the body and answers a constant, at the same paths;
              batches of 100 out of 10,000 keys, counted in keys. "hot": all keys are near (an answer says so);
              "nothing near": a node with CACHE_NEAR_BYTES=0. Beside it Debian's webdis with one thread, on the same
              Valkey over the same kind of socket, asked by the same generator. One answer in 61 is checked to the last
              byte of its value; so is what lies in the store after the last write. `cache_costs` measures parts by
              themselves, without HTTP.
- channels    messages of 100 bytes to 500 WebSocket subscribers, published over HTTP by the process that reads them:
              one at a time, or ten at once, so that they share a tick of the node's loop; how many frames came with a
              read is printed. An operation is one message delivered to one subscriber; the CPU of taking it in is part
              of it. Beside it the floor, prebuilt frames on bare uvloop transports, and Debian's nginx with nchan, in
              one process and without a store; whoever makes the frame, subscribers get the same number of bytes.
              Every subscriber must get every message in order: one is looked at frame by frame, the checksums of all
              others must be the same. Then everyone at half the pace that fills a core of the node, open loop: publish
              → receive of every delivery, counted from when a message was due; and beside one more subscriber, which
              has a channel of large messages as well, and reads it or stalls. An idle connection is weighed by the
              growth of the resident size over 5,000 of them.
- sends       `POST /messages` beside the same handler that does nothing, by CPU-second like "accept": the stand-in for
              Evolution holds its answers meanwhile, so that what is accepted waits. Then deliveries per second, beside
              the stack that this replaces, which is in `celery_stack/`: FastAPI in one process of uvicorn (uvloop,
              httptools, no access log), Celery with two prefork worker processes, and the same kind of store between
              them. Here nobody has a core to itself: all processes of a side, its store, its stand-in and the
              generator share the same two cores. Tasks are posted by 64 connections, for 1,000 contacts; from the
              first request until the last message has arrived, or what waited because the stand-in held its answers,
              from its letting go. Buzón is one node, or two workers, as Celery has. Every task must arrive, none
              twice, and one more must say of itself that it was done.
- inventory   commands, one POST /inventario to four POST /inventario/{id}/linea over 1,000 inventories, and queries, by
              CPU-second of the server, beside handlers that do nothing and beside `sqlalchemy_stack/`: FastAPI with
              SQLAlchemy's asynchronous sessions on asyncpg, in one process of uvicorn as under "sends", with as many
              sessions as the node has. Both sides have a database of their own, filled alike, on one embedded
              PostgreSQL, which shares the other core with the generator; "store" is what it used, and the node's Valkey
              with it. A command of the node counts when the projection has it, so that relay, stream, channel and
              projector are in its CPU; FastAPI's counts when it and its row of the outbox are committed: carrying them
              on would be another program's work. Queries are of inventories that nobody changes; from the near cache,
              and past it with `?after=`. One answer in 61 is checked; in the end the database must hold each command
              once, and `verify` must find the projection right. Then 300 commands/s at a fixed pace: the time
              from a command's answer until the database's projection has its event, looked at every 4 ms; and once more
              with a `GET /inventario/{id}?after=` the event behind each, until that is answered, which must hold what
              was acknowledged. A reader that is told to come again has waited 2 s at the least. And rebuilds of the
              projection by themselves, from 201,000 events whose lines are spread over all 20,000 inventories.
- idle        CPU of three nodes on one store in 10 s without a request; the busiest counts.
Beside the two figures of time stands what share of the node's core other programs took: they mean little on a busy
machine, where a server at half its core in the closed loops tells the same.
"""
