//! URI references in playlists and manifests (RFC 3986, section 4.1), changed without being rebuilt.

use crate::query;

/// Whether a client that was sent `uri` by one of `hosts` (`host` or `host:port`) comes back to us with it.
///
/// Relative references do; an absolute one does if it is of HTTP and names such a host. What begins with a variable of
/// HLS, `{$name}`, may lead anywhere.
#[must_use]
pub fn is_ours(uri: &str, hosts: &[&str]) -> bool {
    if uri.is_empty() || uri.starts_with("{$") {
        return false;
    }
    if let Some(rest) = uri.strip_prefix("//") {
        return is_any_host(authority(rest), None, hosts);
    }
    let Some(scheme) = scheme(uri) else { return true };
    let Some(default_port) = default_port(scheme) else { return false };
    let rest = uri.split_once("://").map(|(_scheme, rest)| rest);
    rest.is_some_and(|rest| is_any_host(authority(rest), Some(default_port), hosts))
}

/// `uri` with `name=value` as the first pair of its query, in place of any other pair of that name.
#[must_use]
pub fn with_parameter(uri: &str, name: &str, value: &str) -> String {
    let uri = without_parameter(uri, name);
    let (address, fragment) = split_fragment(&uri);
    match address.split_once('?') {
        Some((path, query)) if !query.is_empty() => format!("{path}?{name}={value}&{query}{fragment}"),
        Some((path, _empty)) => format!("{path}?{name}={value}{fragment}"),
        None => format!("{address}?{name}={value}{fragment}"),
    }
}

/// `uri` without the pairs of its query that are called `name`, and without a question mark that only they were for.
#[must_use]
pub fn without_parameter(uri: &str, name: &str) -> String {
    let (address, fragment) = split_fragment(uri);
    let Some((path, query)) = address.split_once('?') else { return uri.to_owned() };
    if query::value(query, name).is_none() {
        return uri.to_owned();
    }
    match query::without(query, name).as_str() {
        "" => format!("{path}{fragment}"),
        rest => format!("{path}?{rest}{fragment}"),
    }
}

fn split_fragment(uri: &str) -> (&str, &str) {
    uri.split_at(uri.find('#').unwrap_or(uri.len()))
}

/// What stands before the first colon, if it is a scheme and no part of a path.
fn scheme(uri: &str) -> Option<&str> {
    let (scheme, _rest) = uri.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(scheme)
}

fn default_port(scheme: &str) -> Option<&'static str> {
    let known = [("http", ":80"), ("https", ":443")];
    known.into_iter().find(|(name, _port)| name.eq_ignore_ascii_case(scheme)).map(|(_name, port)| port)
}

fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn is_any_host(authority: &str, default_port: Option<&str>, hosts: &[&str]) -> bool {
    let plain = |host: &str| {
        let without_port = default_port.and_then(|port| host.strip_suffix(port));
        without_port.unwrap_or(host).to_ascii_lowercase()
    };
    hosts.iter().any(|host| plain(host) == plain(authority))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relative_references_and_our_own_names_are_ours() {
        for uri in [
            "cam-7.ts",
            "../cam-7.ts?a=b:c",
            "/live/cam.m3u8",
            "./a:b.ts",
            "?x",
            "http://edge.example:8080/x.ts",
            "HTTP://EDGE.example:8080",
            "//edge.example:8080/x.ts",
            "http://plain.example:80/x.ts",
            "http://plain.example?x",
            "https://tls.example/x.ts",
        ] {
            assert!(is_ours(uri, &["edge.example:8080", "plain.example", "tls.example:443"]), "{uri}");
        }
    }

    #[test]
    fn other_hosts_and_other_schemes_are_not() {
        for uri in [
            "http://keys.example.com/cam-8.key",
            "http://edge.example/x.ts",
            "http://edge.example:8080@evil.example/x.ts",
            "http://u@edge.example:8080/x.ts",
            "//cdn.example/x.ts",
            "ftp://edge.example:8080/x.ts",
            "http:x.ts",
            "skd://edge.example:8080",
            "data:text/plain;base64,AAAA",
            "urn:mpeg:dash:resolve-to-zero:2013",
            "a:b.ts",
            "{$base}/x.ts",
            "",
        ] {
            assert!(!is_ours(uri, &["edge.example:8080"]), "{uri}");
        }
    }

    #[test]
    fn a_parameter_comes_first_and_the_rest_stays_raw() {
        for (uri, expected) in [
            ("cam-7.ts", "cam-7.ts?id=x"),
            ("cam-7.ts?hls_ctx=1&token=a%2Fb+c", "cam-7.ts?id=x&hls_ctx=1&token=a%2Fb+c"),
            ("cam-7.ts?id=old&a", "cam-7.ts?id=x&a"),
            ("cam-7.ts?id=old&&a", "cam-7.ts?id=x&&a"),
            ("cam-7.ts?", "cam-7.ts?id=x"),
            ("cam-7.ts?a#t=1?2", "cam-7.ts?id=x&a#t=1?2"),
            ("http://h", "http://h?id=x"),
            ("a?b?c", "a?id=x&b?c"),
        ] {
            assert_eq!(with_parameter(uri, "id", "x"), expected);
        }
    }

    #[test]
    fn a_parameter_leaves_nothing_behind() {
        for (uri, expected) in [
            ("cam-7.ts?id=x", "cam-7.ts"),
            ("cam-7.ts?id=x#f", "cam-7.ts#f"),
            ("cam-7.ts?id", "cam-7.ts"),
            ("cam-7.ts?", "cam-7.ts?"),
            ("cam-7.ts?a=%zz&&id=x&b", "cam-7.ts?a=%zz&&b"),
            ("id=x", "id=x"),
        ] {
            assert_eq!(without_parameter(uri, "id"), expected);
        }
    }

    proptest! {
        #[test]
        fn removing_undoes_adding(uri in "[a-z/:.{}$]{0,20}(\\?[a-z=&?%]{1,20})?(#[a-z?&]{0,5})?") {
            let added = with_parameter(&uri, "ID", "x");
            prop_assert_eq!(without_parameter(&added, "ID"), uri);
            prop_assert_eq!(with_parameter(&added, "ID", "x"), added);
        }

        #[test]
        fn any_text_is_ours_or_not(uri in ".*", host in ".*") {
            let _ = is_ours(&uri, &[&host]);
            let _ = with_parameter(&uri, "id", "x");
        }
    }
}
