use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::api::testing::text;

/// A directory of files within another one that has a secret, gone with the test.
struct Site(PathBuf);

impl Site {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("xproxy-site-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let site = Self(Path::new("/tmp").join(name));
        fs::create_dir_all(site.path("empty")).unwrap();
        fs::create_dir_all(site.path("players/.git")).unwrap();
        fs::write(site.0.join("secret.txt"), "secret").unwrap();
        site.write("index.html", "<h1>index</h1>").write("players/index.html", "<h1>players</h1>");
        site.write("players/app.js", "0123456789")
            .write(".env", "secret")
            .write("players/.git/config", "secret");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("site").join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn files(&self) -> StaticFiles {
        let directory = self.0.join("site");
        StaticFiles::new(
            &Config::from_variables([("PROXY_STATIC_FILES", directory.to_str().unwrap())]).unwrap(),
        )
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

async fn ask(files: &StaticFiles, method: Method, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    files.answer(&parts).await.unwrap_or_else(ApiError::into_response)
}

async fn get(files: &StaticFiles, target: &str) -> (StatusCode, String) {
    text(ask(files, Method::GET, target, &[]).await).await
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_str().unwrap()
}

#[tokio::test]
async fn a_directory_shows_its_index_and_never_what_else_is_in_it() {
    let site = Site::new();
    let files = site.files();
    assert_eq!(get(&files, "/").await, (StatusCode::OK, "<h1>index</h1>".into()));
    assert_eq!(get(&files, "/players/?a=b").await, (StatusCode::OK, "<h1>players</h1>".into()));
    let moved = ask(&files, Method::GET, "/players", &[]).await;
    assert_eq!((moved.status(), header(&moved, "location")), (StatusCode::TEMPORARY_REDIRECT, "/players/"));
    for target in ["/empty/", "/nothing", "/nothing/", "/players/app.js/", "/index.html/x"] {
        assert_eq!(get(&files, target).await.0, StatusCode::NOT_FOUND, "{target}");
    }
}

#[tokio::test]
async fn types_are_told_by_names() {
    let site = Site::new();
    let files = site.files();
    for (name, kind) in [
        ("a.html", "text/html"),
        ("a.js", "text/javascript"),
        ("a.css", "text/css"),
        ("a.wasm", "application/wasm"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.swf", "application/x-shockwave-flash"),
        ("a.unknown-kind", "application/octet-stream"),
    ] {
        site.write(name, "x");
        let answer = ask(&files, Method::GET, &format!("/{name}"), &[]).await;
        assert_eq!(header(&answer, "content-type"), kind, "{name}");
        assert_eq!(header(&answer, "access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn head_ranges_and_conditions_are_answered() {
    let site = Site::new();
    let files = site.files();
    let whole = ask(&files, Method::HEAD, "/players/app.js", &[]).await;
    assert_eq!((whole.status(), header(&whole, "content-length")), (StatusCode::OK, "10"));
    let (etag, modified) = (header(&whole, "etag").to_owned(), header(&whole, "last-modified").to_owned());
    assert_eq!(text(whole).await.1, "");
    let part = ask(&files, Method::GET, "/players/app.js", &[("range", "bytes=2-4")]).await;
    assert_eq!(header(&part, "content-range"), "bytes 2-4/10");
    assert_eq!(text(part).await, (StatusCode::PARTIAL_CONTENT, "234".into()));
    let beyond = ask(&files, Method::GET, "/players/app.js", &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    for condition in [("if-none-match", &etag), ("if-modified-since", &modified)] {
        let same = ask(&files, Method::GET, "/players/app.js", &[(condition.0, condition.1)]).await;
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED, "{condition:?}");
    }
    let other = ask(&files, Method::GET, "/players/app.js", &[("if-none-match", "\"other\"")]).await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn files_are_read_and_not_written() {
    let site = Site::new();
    let files = site.files();
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(ask(&files, method, "/", &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    let preflight = ask(&files, Method::OPTIONS, "/", &[]).await;
    assert_eq!(
        (preflight.status(), header(&preflight, "access-control-allow-origin")),
        (StatusCode::OK, "*")
    );
}

#[tokio::test]
async fn nothing_leads_out_of_the_directory() {
    let site = Site::new();
    symlink("../secret.txt", site.path("relative.txt")).unwrap();
    symlink(site.0.join("secret.txt"), site.path("absolute.txt")).unwrap();
    symlink("..", site.path("up")).unwrap();
    symlink("/", site.path("root")).unwrap();
    symlink("loop", site.path("loop")).unwrap();
    symlink("/proc/self/fd", site.path("players/fd")).unwrap();
    let files = site.files();
    for target in [
        "/../secret.txt",
        "/players/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/players/..%5c..%5csecret.txt",
        "/relative.txt",
        "/absolute.txt",
        "/up/secret.txt",
        "/root/etc/passwd",
        "/loop",
        "/players/fd/0",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/index.html%00.js",
        "//players",
    ] {
        let answer = ask(&files, Method::GET, target, &[]).await;
        let (status, body) = text(answer).await;
        assert!(!body.contains("secret") && !body.contains("root:"), "{target}: {body}");
        assert!(status.is_client_error(), "{target}: {status}");
    }
}

#[tokio::test]
async fn links_that_stay_inside_are_followed() {
    let site = Site::new();
    symlink("players/app.js", site.path("link.js")).unwrap();
    // As a volume of Kubernetes has it.
    fs::create_dir(site.path("..data")).unwrap();
    site.write("..data/page.html", "page");
    symlink("..data/page.html", site.path("page.html")).unwrap();
    let files = site.files();
    assert_eq!(get(&files, "/link.js").await, (StatusCode::OK, "0123456789".into()));
    assert_eq!(get(&files, "/page.html").await, (StatusCode::OK, "page".into()));
    assert_eq!(get(&files, "/..data/page.html").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hidden_files_and_what_is_no_file_do_not_exist() {
    let site = Site::new();
    let pipe = site.path("pipe.js");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let files = site.files();
    for target in ["/.env", "/%2eenv", "/players/.git/config", "/players/.git/", "/pipe.js"] {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), get(&files, target));
        assert_eq!(answer.await.expect("no waiting for a writer").0, StatusCode::NOT_FOUND, "{target}");
    }
}

#[tokio::test]
async fn a_directory_may_come_later_and_be_replaced() {
    let site = Site::new();
    let (aside, directory) = (site.0.join("aside"), site.0.join("site"));
    fs::rename(&directory, &aside).unwrap();
    let files = site.files();
    assert_eq!(get(&files, "/").await.0, StatusCode::NOT_FOUND);
    fs::create_dir(&directory).unwrap();
    site.write("index.html", "new");
    assert_eq!(get(&files, "/").await, (StatusCode::OK, "new".into()));
    fs::remove_dir_all(&directory).unwrap();
    fs::rename(&aside, &directory).unwrap();
    assert_eq!(get(&files, "/").await, (StatusCode::OK, "<h1>index</h1>".into()));
}
