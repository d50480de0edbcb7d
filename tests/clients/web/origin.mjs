// node-media-server as an origin: RTMP, HTTP-FLV, FLV by WebSocket, HLS of the app `live`.
// Usage: origin.mjs RTMP_PORT HTTP_PORT DIRECTORY
import { load } from "./parts.mjs";

const [rtmp, http, directory] = process.argv.slice(2);
const NodeMediaServer = load("node-media-server");

new NodeMediaServer({
  logType: 1,
  rtmp: { port: Number(rtmp), chunk_size: 60000, gop_cache: true, ping: 30, ping_timeout: 60 },
  http: { port: Number(http), mediaroot: directory, allow_origin: "*", api: false },
  trans: {
    ffmpeg: "/usr/bin/ffmpeg",
    tasks: [{ app: "live", hls: true, hlsFlags: "[hls_time=1:hls_list_size=4:hls_flags=delete_segments]", hlsKeep: false }],
  },
}).run();
