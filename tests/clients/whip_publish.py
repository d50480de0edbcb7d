#!/usr/bin/env python3
"""Publishes synthetic video and audio by WHIP with a third-party WebRTC stack.

--stack aiortc   aiortc: a full ICE agent, VP8 or H264 encoded on the fly
--stack ffmpeg   FFmpeg's whip muxer through PyAV: H264 by libx264, Opus by libopus

Prints one JSON line when media may flow and one at the end. SIGTERM ends it early, in the same way.
"""

import argparse
import asyncio
import fractions
import json
import math
import os
import signal
import struct
import subprocess
import tempfile
import threading
import time

import av

FPS = 25
SAMPLE_RATE = 48000
AUDIO_FRAME = 960


def say(event, **members):
    print(json.dumps({"event": event, **members}), flush=True)


RAMP = bytes(range(256)) * 32


def picture(number, width, height):
    """A moving gradient, so that every frame differs from the one before."""
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, speed in zip(frame.planes, (2, 3, 5)):
        rows = (RAMP[(y + speed * number) % 256 :][: plane.line_size] for y in range(plane.height))
        plane.update(b"".join(rows))
    return frame


def period():
    """20 ms of 450 Hz are nine whole waves, so every frame of audio is the same."""
    wave = (int(8000 * math.sin(2 * math.pi * 450 * at / SAMPLE_RATE)) for at in range(AUDIO_FRAME))
    return b"".join(struct.pack("<hh", value, value) for value in wave)


TONE = period()


def tone(number):
    frame = av.AudioFrame(format="s16", layout="stereo", samples=AUDIO_FRAME)
    frame.planes[0].update(TONE)
    frame.sample_rate = SAMPLE_RATE
    frame.pts, frame.time_base = number * AUDIO_FRAME, fractions.Fraction(1, SAMPLE_RATE)
    return frame


# ---- aiortc ---------------------------------------------------------------------------------------------------


def synthetic_track(base, make_frame, interval, timestamp_step, clock):
    """A track of class `base` that delivers a frame every `interval` seconds."""

    class SyntheticTrack(base):
        def __init__(self):
            super().__init__()
            self.started = time.monotonic()
            self.number = 0

        async def recv(self):
            wait = self.started + self.number * interval - time.monotonic()
            await asyncio.sleep(max(wait, 0))
            frame = make_frame(self.number)
            frame.pts = self.number * timestamp_step
            frame.time_base = fractions.Fraction(1, clock)
            self.number += 1
            return frame

    return SyntheticTrack()


async def publish_with_aiortc(arguments):
    import aiohttp
    from aiortc import AudioStreamTrack, RTCConfiguration, RTCPeerConnection
    from aiortc import RTCRtpSender, RTCSessionDescription, VideoStreamTrack

    loop = asyncio.get_running_loop()
    stopped = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, stopped.cancel)
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    make_picture = lambda number: picture(number, arguments.width, arguments.height)
    video = synthetic_track(VideoStreamTrack, make_picture, 1 / FPS, 90000 // FPS, 90000)
    audio = synthetic_track(AudioStreamTrack, tone, AUDIO_FRAME / SAMPLE_RATE, AUDIO_FRAME, SAMPLE_RATE)
    connection.addTransceiver(audio, "sendonly")
    transceiver = connection.addTransceiver(video, "sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    wanted = [codec for codec in codecs if codec.mimeType.lower() in (f"video/{arguments.codec}", "video/rtx")]
    transceiver.setCodecPreferences(wanted)

    posted = time.monotonic()

    @connection.on("connectionstatechange")
    def changed():
        say("state", state=connection.connectionState, ms=round((time.monotonic() - posted) * 1000, 1))

    await connection.setLocalDescription(await connection.createOffer())
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "application/sdp"}
        async with http.post(arguments.url, data=connection.localDescription.sdp, headers=headers) as answer:
            assert answer.status == 201, f"{answer.status}: {await answer.text()}"
            sdp, location = await answer.text(), answer.headers["Location"]
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        await asyncio.wait([stopped], timeout=arguments.seconds)
        stats = await connection.getStats()
        sent = [report for report in stats.values() if report.type == "outbound-rtp"]
        packets = {report.kind: report.packetsSent for report in sent}
        say("end", state=connection.connectionState, packets_sent=packets)
        await delete(http, arguments.url, location)
        await connection.close()


async def delete(http, url, location):
    """Location goes out byte for byte: ICE user names may hold characters that URL libraries would rewrite."""
    import yarl

    authority = "/".join(url.split("/", 3)[:3])
    target = location if location.startswith("http") else authority + location
    async with http.delete(yarl.URL(target, encoded=True)) as answer:
        say("deleted", status=answer.status)


# ---- FFmpeg ---------------------------------------------------------------------------------------------------


def make_certificate(directory):
    """A P-256 certificate: the muxer's own is on a curve that not every DTLS stack takes."""
    key, certificate = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=whip", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return {"cert_file": certificate, "key_file": key}


def video_encoder(output, arguments):
    options = {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline"}
    stream = output.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height, stream.pix_fmt = arguments.width, arguments.height, "yuv420p"
    stream.bit_rate = arguments.bitrate
    stream.gop_size = FPS
    stream.codec_context.flags |= av.codec.context.Flags.global_header
    return stream


def publish_with_ffmpeg(arguments):
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    posted = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        output = av.open(arguments.url, "w", format="whip", options=make_certificate(directory))
        video = video_encoder(output, arguments)
        audio = output.add_stream("libopus", rate=SAMPLE_RATE, layout="stereo")
        output.start_encoding()
        say("state", state="connected", ms=round((time.monotonic() - posted) * 1000, 1))
        packets = write_in_real_time(output, video, audio, arguments, stopped)
        output.close()
    say("end", state="closed", packets_sent=packets)


def write_in_real_time(output, video, audio, arguments, stopped):
    packets = {"video": 0, "audio": 0}
    started = time.monotonic()
    pictures = tones = 0
    while (elapsed := time.monotonic() - started) < arguments.seconds and not stopped.is_set():
        while pictures / FPS <= elapsed:
            frame = picture(pictures, arguments.width, arguments.height)
            frame.pts, frame.time_base = pictures, fractions.Fraction(1, FPS)
            packets["video"] += mux(output, video, frame)
            pictures += 1
        while tones * AUDIO_FRAME / SAMPLE_RATE <= elapsed:
            packets["audio"] += mux(output, audio, tone(tones))
            tones += 1
        time.sleep(0.005)
    return packets


def mux(output, stream, frame):
    packets = stream.encode(frame)
    for packet in packets:
        output.mux(packet)
    return len(packets)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://host:1985/rtc/v1/whip/?app=live&stream=name")
    parser.add_argument("--stack", choices=["aiortc", "ffmpeg"], default="aiortc")
    parser.add_argument("--codec", choices=["h264", "vp8"], default="h264", help="video codec (aiortc)")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--bitrate", type=int, default=500_000, help="video bits per second (ffmpeg)")
    arguments = parser.parse_args()
    if arguments.stack == "aiortc":
        asyncio.run(publish_with_aiortc(arguments))
    else:
        publish_with_ffmpeg(arguments)


if __name__ == "__main__":
    main()
