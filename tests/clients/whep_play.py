#!/usr/bin/env python3
"""Plays a stream by WHEP with aiortc and decodes it.

Prints JSON lines: connection states, the first frame of each kind, a progress line each second, and at the end
the frames decoded and the packets received and lost. SIGTERM ends it early, in the same way.
"""

import argparse
import asyncio
import json
import signal
import time

import aiohttp
import yarl
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError


def say(event, **members):
    print(json.dumps({"event": event, **members}), flush=True)


class Player:
    """One session and what it has decoded so far."""

    def __init__(self, url):
        self.url = url
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.frames = {"audio": 0, "video": 0}
        self.readers = []
        self.posted = time.monotonic()
        self.location = None

    def elapsed_ms(self):
        return round((time.monotonic() - self.posted) * 1000, 1)

    async def start(self, http):
        for kind in ("audio", "video"):
            self.connection.addTransceiver(kind, "recvonly")
        self.connection.on("track", lambda track: self.readers.append(asyncio.ensure_future(self.read(track))))
        self.connection.on("connectionstatechange", self.say_state)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        self.posted = time.monotonic()
        headers = {"Content-Type": "application/sdp"}
        async with http.post(self.url, data=self.connection.localDescription.sdp, headers=headers) as answer:
            assert answer.status == 201, f"{answer.status}: {await answer.text()}"
            sdp, self.location = await answer.text(), answer.headers["Location"]
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    def say_state(self):
        say("state", state=self.connection.connectionState, ms=self.elapsed_ms())

    async def read(self, track):
        try:
            while True:
                await track.recv()
                self.frames[track.kind] += 1
                if self.frames[track.kind] == 1:
                    say("first_frame", kind=track.kind, ms=self.elapsed_ms())
        except MediaStreamError:
            return

    async def packets(self):
        reports = (await self.connection.getStats()).values()
        inbound = [report for report in reports if report.type == "inbound-rtp"]
        return {report.kind: {"received": report.packetsReceived, "lost": report.packetsLost} for report in inbound}

    async def stop(self, http):
        """Location goes out byte for byte: ICE user names may hold characters that URL libraries would rewrite."""
        authority = "/".join(self.url.split("/", 3)[:3])
        target = self.location if self.location.startswith("http") else authority + self.location
        async with http.delete(yarl.URL(target, encoded=True)) as answer:
            say("deleted", status=answer.status)
        await self.connection.close()
        await asyncio.gather(*self.readers)


async def play(arguments):
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, stopped.cancel)
    async with aiohttp.ClientSession() as http:
        player = Player(arguments.url)
        await player.start(http)
        end = time.monotonic() + arguments.seconds
        while (left := end - time.monotonic()) > 0 and not stopped.done():
            await asyncio.wait([stopped], timeout=min(1, left))
            say("progress", frames=player.frames, packets=await player.packets())
        say("end", frames=player.frames, packets=await player.packets(), state=player.connection.connectionState)
        await player.stop(http)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://host:1985/rtc/v1/whep/?app=live&stream=name")
    parser.add_argument("--seconds", type=float, default=10)
    asyncio.run(play(parser.parse_args()))


if __name__ == "__main__":
    main()
