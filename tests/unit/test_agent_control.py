"""The agent's socket, and those who do not know its language."""

import asyncio
import json
import random

from lbnode.agent import control
from lbnode.errors import LbnodeError
from lbnode.paths import Paths

REFUSAL = {"error": 'cannot understand: send one line such as {"ask": "status"}'}


async def say(paths, data):
    """What comes back; nothing when the connection breaks before."""
    reader, writer = await asyncio.open_unix_connection(paths.agent_socket)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def unreadable():
    raise LbnodeError("cannot read told.json: it is not ours")


async def hostile(paths):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    server = await control.serve(paths, {"status": lambda: {"ok": True}, "broken": unreadable})
    chance = random.Random(3)  # noqa: S311
    scraps = [b"{", b"}", b'"ask"', b":", b'"status"', b"[", b"]", b"null", b"1e999", b"\xff", b"\x00", b" "]
    answers = []
    for _ in range(1_000):
        lines = [b"".join(chance.choices(scraps, k=chance.randrange(12))) for _ in range(10)]
        answers.append(await say(paths, b"\n".join(lines) + b"\n"))
    odd = (b"", b"[" * 50_000, b"x" * 200_000, b'{"ask": []}\n', b'{"ask": {"status": 1}}\n', b'"ask"\n')
    answers += [await say(paths, line) for line in odd]
    good = await say(paths, b'{"ask": "status"}\n')
    told = await say(paths, b'{"ask": "broken"}\n')
    server.close()
    return answers, good, told, complaints


def test_random_lines_are_refused_and_harm_nobody(tmp_path):
    answers, good, told, complaints = asyncio.run(hostile(Paths(tmp_path, tmp_path)))
    assert {json.dumps(json.loads(answer)) for answer in answers if answer} <= {json.dumps(REFUSAL), '{"ok": true}'}
    assert json.loads(good) == {"ok": True}
    assert json.loads(told) == {"error": "cannot read told.json: it is not ours"}
    assert complaints == []
