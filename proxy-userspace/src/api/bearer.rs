//! Bearer tokens (RFC 6750).

use http::{HeaderMap, header};

use super::ApiError;
use crate::config::Secret;

/// Demands `token`, if there is one.
pub(super) fn authorize(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), ApiError> {
    token.map_or(Ok(()), |token| authorize_any(headers, std::slice::from_ref(token)))
}

/// Demands one of `tokens`.
pub(super) fn authorize_any(headers: &HeaderMap, tokens: &[Secret]) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let given = given.ok_or(ApiError::Unauthorized)?;
    // None is left out, so that the time does not tell which one a guess is like.
    let is_known =
        tokens.iter().fold(false, |is_known, token| is_known | is_same(given, token.expose().as_bytes()));
    if is_known { Ok(()) } else { Err(ApiError::Unauthorized) }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Takes as long for a guess whose first bytes are right as for any other.
fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let difference = given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b));
    given.len() == expected.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_several_tokens_is_taken_and_no_other() {
        let tokens = ["one", "two"].map(Secret::new);
        let is_taken = |value: &'static str| {
            let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            authorize_any(&headers, &tokens).is_ok()
        };
        assert!(is_taken("Bearer one") && is_taken("bearer  two"));
        for value in ["Bearer", "Bearer ", "Bearer onetwo", "Bearer one,two", "Basic one", "Bearer on", "one"]
        {
            assert!(!is_taken(value), "{value}");
        }
        assert!(authorize_any(&HeaderMap::new(), &tokens).is_err());
        assert!(authorize_any(&HeaderMap::new(), &[]).is_err());
    }
}
