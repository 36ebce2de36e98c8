# A tool server for the tests, by the official Python SDK.
import asyncio
import os

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("quoit tests")
cancelled = 0


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Says it again."""
    return text


@server.tool()
def scope() -> str:
    """Says on whose behalf this runs."""
    return os.environ.get("TENANT", "")


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("this one always fails")


@server.tool()
async def count(to: int, ctx: Context) -> int:
    """Counts, and says how far it is."""
    for n in range(1, to + 1):
        await ctx.report_progress(n, to)
    return to


@server.tool()
async def wait(ctx: Context) -> str:
    """Waits until it is cancelled."""
    global cancelled
    try:
        await ctx.report_progress(1, 2)
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return "waited"


@server.tool()
def cancels() -> int:
    """Says how many waits were cancelled."""
    return cancelled


server.run()
