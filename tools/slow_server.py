#!/usr/bin/env python3
"""Serves a folder like a distant web server: with ranges, and every answer after a pause.

    tools/slow_server.py shards --pause 30 &
    nct bench loader --shards http://127.0.0.1:8080
"""

import argparse
import asyncio
import pathlib
import urllib.parse


def answer(root: pathlib.Path, path: str, wanted: str) -> tuple[str, bytes, list[str]]:
    """Status, body and headers."""
    file = (root / urllib.parse.unquote(path.split("?")[0]).lstrip("/")).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        return "404 Not Found", b"", []
    size = file.stat().st_size
    if not wanted:
        return "200 OK", file.read_bytes(), []
    first, last = wanted.removeprefix("bytes=").split("-")
    start, end = int(first), min(int(last or size - 1) + 1, size)
    if start >= size:
        return "416 Range Not Satisfiable", b"", []
    with file.open("rb") as stream:
        stream.seek(start)
        body = stream.read(end - start)
    return "206 Partial Content", body, [f"Content-Range: bytes {start}-{end - 1}/{size}"]


async def serve(root: pathlib.Path, pause: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while request := (await reader.readline()).decode().split():
            headers = {}
            while line := (await reader.readline()).decode().strip():
                name, value = line.split(":", 1)
                headers[name.lower()] = value.strip()
            await asyncio.sleep(pause)
            status, body, more = answer(root, request[1], headers.get("range", ""))
            head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more, "", ""]
            writer.write("\r\n".join(head).encode() + (b"" if request[0] == "HEAD" else body))
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--pause", type=float, default=0, help="milliseconds before every answer")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    root = args.folder.resolve()
    server = await asyncio.start_server(
        lambda reader, writer: serve(root, args.pause / 1000, reader, writer), "127.0.0.1", args.port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
