// Packages lie where `cargo xtask setup` puts them, not beside these files.
import { createRequire } from "node:module";

const directory = process.env.WEB_CLIENTS;
if (!directory) throw new Error("WEB_CLIENTS is not set: it names the directory with node_modules");

export const load = createRequire(`${directory}/`);
