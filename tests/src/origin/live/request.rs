//! What a player asks for by HTTP.

/// A file as SRS names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `app/stream.flv`.
    Flv(String),
    /// `app/stream.ts`.
    Ts(String),
    /// `app/stream.m3u8`.
    Playlist(String),
    /// `app/stream-number.ts`.
    Segment(String, u64),
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    /// A page of a browser asks, for it says where it is from.
    pub(super) is_of_page: bool,
    /// The client wants the connection closed.
    pub(super) closes: bool,
}

/// Reads a head and how long it is; `None` until it is whole.
///
/// # Errors
/// When it is no request.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let has = |name: &str, is: &dyn Fn(&[u8]) -> bool| {
        request.headers.iter().any(|field| field.name.eq_ignore_ascii_case(name) && is(field.value))
    };
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        is_of_page: has("origin", &|_| true),
        closes: request.version == Some(0)
            || has("connection", &|value| value.eq_ignore_ascii_case(b"close")),
    };
    Ok(Some((head, length)))
}

impl Head {
    /// A browser asks whether it may ask.
    pub(super) fn is_preflight(&self) -> bool {
        self.method == "OPTIONS"
    }

    /// The stream's file, if it is one. A name that ends like a segment's is one if `has_segment` says so.
    pub(super) fn wanted(&self, has_segment: impl Fn(&str, u64) -> bool) -> Option<Wanted> {
        let (stream, extension) = self.path.strip_prefix('/')?.rsplit_once('.')?;
        let (app, name) = stream.rsplit_once('/')?;
        if app.is_empty() || name.is_empty() {
            return None;
        }
        let segment = || stream.rsplit_once('-').and_then(|(of, number)| Some((of, number.parse().ok()?)));
        match extension {
            "flv" => Some(Wanted::Flv(stream.to_owned())),
            "m3u8" => Some(Wanted::Playlist(stream.to_owned())),
            "ts" => {
                match segment().filter(|(of, number)| self.context().is_some() || has_segment(of, *number)) {
                    Some((of, number)) => Some(Wanted::Segment(of.to_owned(), number)),
                    None => Some(Wanted::Ts(stream.to_owned())),
                }
            }
            _ => None,
        }
    }

    /// The player's context.
    pub(super) fn context(&self) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(name, value)| (name == "hls_ctx" && !value.is_empty()).then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Head {
        head(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn files_are_told_apart_by_their_names() {
        let wanted = |target: &str| get(target).wanted(|of, number| (of, number) == ("live/s", 7));
        assert_eq!(wanted("/live/s.flv?token=1"), Some(Wanted::Flv("live/s".into())));
        assert_eq!(wanted("/live/s-7.ts"), Some(Wanted::Segment("live/s".into(), 7)));
        assert_eq!(wanted("/live/s-8.ts"), Some(Wanted::Ts("live/s-8".into())));
        assert_eq!(wanted("/live/s-8.ts?hls_ctx=a"), Some(Wanted::Segment("live/s".into(), 8)));
        assert_eq!(wanted("/a/b/s.m3u8"), Some(Wanted::Playlist("a/b/s".into())));
        for other in ["/", "/s.flv", "/live/.flv", "/live/s", "/live/s.jpg"] {
            assert_eq!(wanted(other), None, "{other}");
        }
    }

    #[test]
    fn a_context_is_found_wherever_it_is() {
        assert_eq!(get("/live/s.m3u8?a=b&hls_ctx=x1").context(), Some("x1"));
        assert_eq!(get("/live/s.m3u8?hls_ctx=").context(), None);
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"GET /live/s.flv HTTP/1.1\r\nConnection: Close\r\nOrigin: http://page\r\n\r\nGET /";
        let length = text.len() - 5;
        assert!((0..length).all(|length| head(&text[..length]) == Ok(None)));
        let (read, end) = head(text).unwrap().unwrap();
        assert_eq!((read.closes, read.is_of_page, end), (true, true, length));
        assert!(head(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.closes);
        assert!(!get("/").closes);
        assert!(head(b"\x03\0\0\0\0").is_err());
    }
}
