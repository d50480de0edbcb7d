//! What a machine may lack, in the order of installation.

use std::path::{Path, PathBuf};

use super::Part;
use crate::shell::{self, succeeds, typed};

/// One thing a machine may lack.
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) parts: &'static [Part],
    pub(super) download: &'static str,
    pub(super) is_there: fn() -> bool,
    /// Debian packages.
    pub(super) packages: &'static [&'static str],
    /// What to run after the packages.
    pub(super) commands: &'static [&'static str],
    /// What to do instead where there is no apt or no root.
    pub(super) otherwise: &'static str,
}

const BUILD: &[Part] = &[Part::Build];
const NETWORK: &[Part] = &[Part::Test, Part::Bench];
const TESTS: &[Part] = &[Part::Test];
const CLIENTS: &[Part] = &[Part::Test, Part::Demo];

/// Where Debian puts the module that the tests load.
const NGINX_RTMP: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

pub(super) const STEPS: &[Step] = &[
    Step {
        what: "Rust toolchain for the BPF target",
        parts: BUILD,
        download: "120 MB",
        is_there: || bpf_toolchain().is_some(),
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        commands: &["rustup toolchain link ebpf /usr"],
        otherwise: "rustup toolchain install nightly --component rust-src",
    },
    Step {
        what: "bpf-linker",
        parts: BUILD,
        download: "10 MB, then a minute of compiling",
        is_there: || succeeds(&mut typed("bpf-linker --version")),
        packages: &[],
        commands: &["cargo install --locked bpf-linker --version 0.10.3"],
        otherwise: "",
    },
    Step {
        what: "OpenSSL headers",
        parts: BUILD,
        download: "3 MB",
        is_there: || succeeds(&mut typed("pkg-config --exists openssl")),
        packages: &["pkg-config", "libssl-dev"],
        commands: &[],
        otherwise: "install pkg-config and OpenSSL with its headers",
    },
    Step {
        what: "libsrt",
        parts: BUILD,
        download: "1 MB",
        is_there: || succeeds(&mut typed("pkg-config --exists srt")),
        packages: &["libsrt-openssl-dev"],
        commands: &[],
        otherwise: "install libsrt with its headers",
    },
    Step {
        what: "srt-live-transmit",
        parts: CLIENTS,
        download: "1 MB",
        is_there: || succeeds(&mut typed("srt-live-transmit -version")),
        packages: &["srt-tools"],
        commands: &[],
        otherwise: "install srt-live-transmit",
    },
    Step {
        what: "iproute2",
        parts: NETWORK,
        download: "1 MB",
        is_there: || succeeds(&mut typed("ip -V")) && succeeds(&mut typed("tc -V")),
        packages: &["iproute2"],
        commands: &[],
        otherwise: "install iproute2",
    },
    Step {
        what: "nftables",
        parts: NETWORK,
        download: "1 MB",
        is_there: || succeeds(&mut typed("nft --version")),
        packages: &["nftables"],
        commands: &[],
        otherwise: "install nftables",
    },
    Step {
        what: "ethtool",
        parts: NETWORK,
        download: "1 MB",
        is_there: || succeeds(&mut typed("ethtool --version")),
        packages: &["ethtool"],
        commands: &[],
        otherwise: "install ethtool",
    },
    Step {
        what: "FFmpeg, which publishes and plays streams over TCP",
        parts: CLIENTS,
        download: "55 MB",
        is_there: || {
            ["ffmpeg -version", "ffprobe -version"].iter().all(|program| succeeds(&mut typed(program)))
        },
        packages: &["ffmpeg"],
        commands: &[],
        otherwise: "install ffmpeg with ffprobe",
    },
    Step {
        what: "other programs that relay and play streams over TCP",
        parts: TESTS,
        download: "3 MB",
        is_there: || {
            let programs = ["rtmpdump --help", "nginx -v", "curl --version"];
            programs.iter().all(|program| succeeds(&mut typed(program))) && Path::new(NGINX_RTMP).exists()
        },
        packages: &["nginx-light", "libnginx-mod-rtmp", "rtmpdump", "curl"],
        commands: &[],
        otherwise: "install rtmpdump, curl, and nginx with its RTMP module",
    },
    Step {
        what: "Redis",
        parts: TESTS,
        download: "3 MB",
        is_there: || {
            let programs = ["redis-server --version", "redis-cli --version", "openssl version"];
            programs.iter().all(|program| succeeds(&mut typed(program)))
        },
        packages: &["redis-server", "redis-tools", "openssl"],
        commands: &[],
        otherwise: "install Redis 7 with redis-cli, and OpenSSL",
    },
    Step {
        what: "GStreamer with RTMP and H.264",
        parts: TESTS,
        download: "30 MB",
        is_there: || {
            let elements = ["rtmp2sink", "rtmp2src", "flvmux", "openh264enc", "h264parse"];
            elements
                .iter()
                .all(|element| succeeds(&mut typed(&format!("gst-inspect-1.0 --exists {element}"))))
        },
        packages: &["gstreamer1.0-tools", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad"],
        commands: &[],
        otherwise: "install GStreamer 1.20 or newer with its good and bad plugins",
    },
    Step {
        what: "Chromium, in which pages play streams",
        parts: TESTS,
        download: "120 MB",
        is_there: || succeeds(&mut typed("chromium --version")),
        packages: &["chromium"],
        commands: &[],
        otherwise: "install Chromium as /usr/bin/chromium",
    },
    Step {
        what: "Node.js with npm",
        parts: TESTS,
        download: "40 MB",
        is_there: || succeeds(&mut typed("node --version")) && succeeds(&mut typed("npm --version")),
        packages: &["nodejs", "npm"],
        commands: &[],
        otherwise: "install Node.js 18 or newer with npm",
    },
    Step {
        what: "players of web pages, and node-media-server",
        parts: TESTS,
        download: "20 MB",
        is_there: || {
            // npm writes the hidden one last.
            let installed = shell::root().join("target/tools/web");
            let lock = |directory: &Path| std::fs::read(directory.join("package-lock.json")).ok();
            installed.join("node_modules/.package-lock.json").exists()
                && lock(&installed) == lock(&shell::root().join("tests/clients/web"))
        },
        packages: &[],
        commands: &[
            "mkdir -p target/tools/web",
            "cp tests/clients/web/package.json tests/clients/web/package-lock.json target/tools/web",
            "npm ci --prefix target/tools/web --ignore-scripts --no-audit --no-fund",
        ],
        otherwise: "",
    },
    Step {
        what: "openssl, for the certificates of clients",
        parts: CLIENTS,
        download: "2 MB",
        is_there: || succeeds(&mut typed("openssl version")),
        packages: &["openssl"],
        commands: &[],
        otherwise: "install the openssl command",
    },
    Step {
        what: "Python with virtual environments",
        parts: CLIENTS,
        download: "7 MB",
        is_there: || succeeds(typed("python3 -c").arg("import venv, ensurepip")),
        packages: &["python3", "python3-venv"],
        commands: &[],
        otherwise: "install Python 3.10 or newer with its venv module",
    },
    Step {
        what: "Python WebRTC clients",
        parts: CLIENTS,
        download: "50 MB",
        is_there: || succeeds(typed("target/tools/venv/bin/python -c").arg("import aiortc, aiohttp, av")),
        packages: &[],
        commands: &[
            "python3 -m venv --clear target/tools/venv",
            "target/tools/venv/bin/pip install --progress-bar=off --requirement=tests/clients/requirements.txt",
        ],
        otherwise: "",
    },
];

/// The toolchain that compiles the programs: the choice `proxy-userspace/build.rs` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BpfToolchain {
    /// A linked one with a prebuilt `core`.
    Linked,
    /// Nightly, which builds `core` from rust-src.
    Nightly,
}

impl BpfToolchain {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linked => "ebpf",
            Self::Nightly => "nightly",
        }
    }
}

/// The toolchain that is there and works.
pub(crate) fn bpf_toolchain() -> Option<BpfToolchain> {
    if rustc(BpfToolchain::Linked, "--version").is_some() {
        return has_prebuilt_core().then_some(BpfToolchain::Linked);
    }
    let sysroot = PathBuf::from(rustc(BpfToolchain::Nightly, "--print sysroot")?);
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir().then_some(BpfToolchain::Nightly)
}

fn has_prebuilt_core() -> bool {
    let libraries = rustc(BpfToolchain::Linked, "--print target-libdir --target bpfel-unknown-none");
    let files = libraries.and_then(|directory| std::fs::read_dir(directory).ok());
    files.is_some_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn rustc(toolchain: BpfToolchain, arguments: &str) -> Option<String> {
    let mut command = typed(&format!("rustup run {} rustc {arguments}", toolchain.name()));
    let output = shell::quiet_output(&mut command)?;
    Some(output.trim().to_owned())
}
