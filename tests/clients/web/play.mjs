// Plays streams in Chromium, each by the player that pages use for it, until all have so many frames decoded or time is up.
// Usage: play.mjs FRAMES SECONDS KIND=URL...   with KIND flv (mpegts.js) or hls (hls.js)
// Prints {"URL": {"frames", "width", "error"}, ...}; the page is of another origin than the streams.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { load } from "./parts.mjs";

const { chromium } = load("playwright-core");
const [frames, seconds, ...streams] = process.argv.slice(2);
const scripts = { "/mpegts.js": "mpegts.js/dist/mpegts.js", "/hls.js": "hls.js/dist/hls.min.js" };
const page = `<script src="/mpegts.js"></script><script src="/hls.js"></script>`;

const server = createServer((request, answer) => {
  const script = scripts[request.url];
  answer.setHeader("Content-Type", script ? "text/javascript" : "text/html");
  answer.end(script ? readFileSync(load.resolve(script)) : page);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-background-networking"],
});
try {
  const tab = await browser.newPage();
  tab.on("console", (message) => message.type() === "error" && console.error(message.text()));
  await tab.goto(`http://localhost:${server.address().port}/`);
  await tab.evaluate((streams) => {
    window.players = {};
    for (const stream of streams) {
      const [, kind, url] = stream.match(/^(\w+)=(.*)$/);
      const video = document.createElement("video");
      Object.assign(video, { muted: true, autoplay: true });
      document.body.append(video);
      const player = { video, error: null };
      players[url] = player;
      if (kind === "flv") {
        const source = { type: "flv", isLive: true, url };
        const flv = mpegts.createPlayer(source, { enableWorker: false, lazyLoad: false, enableStashBuffer: false });
        flv.on(mpegts.Events.ERROR, (...error) => (player.error ??= JSON.stringify(error)));
        flv.attachMediaElement(video);
        flv.load();
        flv.play();
      } else {
        const hls = new Hls({ liveSyncDurationCount: 2 });
        hls.on(Hls.Events.ERROR, (_, error) => error.fatal && (player.error ??= error.details));
        hls.loadSource(url);
        hls.attachMedia(video);
      }
    }
  }, streams);
  const state = () =>
    tab.evaluate(() =>
      Object.fromEntries(
        Object.entries(players).map(([url, { video, error }]) => [
          url,
          { frames: video.getVideoPlaybackQuality().totalVideoFrames, width: video.videoWidth, error },
        ]),
      ),
    );
  const end = Date.now() + Number(seconds) * 1000;
  let now = await state();
  while (Date.now() < end && Object.values(now).some((one) => one.frames < Number(frames) && !one.error)) {
    await new Promise((wake) => setTimeout(wake, 100));
    now = await state();
  }
  console.log(JSON.stringify(now));
} finally {
  await browser.close();
  server.close();
}
