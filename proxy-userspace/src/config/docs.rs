//! `docs/configuration.md`, made from the settings table; `UPDATE_DOCS=1 cargo test -p proxy-userspace config::docs`
//! writes it anew.

use std::{env, fmt::Write as _, fs};

use super::settings::{SETTINGS, Setting};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from proxy-userspace/src/config/settings.rs: `cargo xtask tidy --update` writes this file anew. -->

Every setting can be made in five places. The first one that holds a value counts; an empty value counts as none.

1. a flag: `srs-xproxy run --webrtc-server 8000`
2. the environment: `PROXY_WEBRTC_SERVER=8000 srs-xproxy run`
3. the file `.env` in the working directory: `PROXY_WEBRTC_SERVER=8000`
4. a TOML file, named by `--config` or `PROXY_CONFIG`: `webrtc_server = 8000`
5. the default

All settings are checked before anything starts. If any is wrong the process prints everything that is wrong and ends
with status 64. Unknown `PROXY_*` variables are only warned of; unknown flags and TOML keys are errors. Secrets are
never printed.

## Values

| Form | Meaning |
|---|---|
| LISTEN | `8000` or `:8000` (every address), `10.0.0.1:8000`, `[::1]:8000`; port `0` lets the system choose |
| DURATION | numbers with units `h`, `m`, `s`, `ms`, `us`, `ns`: `1h30m`, `20s`, `1.5s`, `100ms` |
| on\\|off | `on` or `off`; a flag without a value means `on`; in TOML also `true` and `false` |
| LIST | items with commas between them; in TOML also an array |
| FIRST-LAST | a range of ports, both ends included |

`.env` holds one `NAME=value` a line. Lines that start with `#` are comments. `export NAME=value`, values in single or
double quotes (with the escapes `\\n`, `\\r`, `\\t`, `\\\"`, `\\\\`, `\\$` in double ones) and comments after white space and `#`
are understood; a value whose quotes do not close is taken as it stands.
";

#[test]
fn documentation_is_made_from_the_table() {
    let expected = document();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PATH, &expected).expect("docs/ is writable");
    }
    let found = fs::read_to_string(PATH).unwrap_or_default();
    assert!(found == expected, "docs/configuration.md is out of date: run `cargo xtask tidy --update`");
}

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in SETTINGS.chunk_by(|a, b| a.heading == b.heading) {
        let title = section[0].heading.title();
        write!(
            text,
            "\n## {title}\n\n| Variable, flag, TOML key | Form | Default | Meaning |\n|---|---|---|---|\n"
        )
        .expect("a string takes everything");
        text.extend(section.iter().map(row));
    }
    text
}

fn row(setting: &Setting) -> String {
    let code = |text: &str| format!("`{text}`");
    let names = [code(setting.variable), code(&format!("--{}", setting.flag)), code(setting.key)];
    let names =
        names.iter().filter(|name| *name != "``").map(String::as_str).collect::<Vec<_>>().join("<br>");
    let default = if setting.default.is_empty() { "none".to_owned() } else { code(setting.default) };
    let form = setting.kind.placeholder().replace('|', "\\|");
    format!("| {names} | {form} | {default} | {} |\n", setting.help)
}
