//! What every value in Redis must hold for any bytes at all: anybody may have written them.

use proxy_userspace::origin::store::{
    FoundSession, HlsId, MemberId, MemberLoad, Notice, StoredOrigin, ValueError,
};

/// A value is refused, or written so that the same is read again.
pub fn value(input: &[u8]) {
    same_again(input, StoredOrigin::read, StoredOrigin::to_json);
    same_again(input, MemberLoad::parse, MemberLoad::to_json);
    same_again(input, HlsId::parse, HlsId::to_json);
    let ufrags = "tf7k1d8s:8uhz".parse().expect("is a pair of ufrags");
    let shared = |input: &[u8]| match FoundSession::parse(&ufrags, input)? {
        FoundSession::Shared(session) => Ok(session),
        FoundSession::OfGo { .. } => Err(ValueError::Type),
    };
    same_again(input, shared, |session| session.to_json());
    let own = MemberId::parse("me").expect("is a name");
    if let Ok(Some(Notice::Origin(origin))) = Notice::read(input, &own) {
        let json = origin.to_json().expect("was read from as much");
        assert_eq!(StoredOrigin::read(&json).expect("was read before"), *origin);
    }
}

/// What is written may be longer than what was read, and than what may be written.
fn same_again<T: std::fmt::Debug + PartialEq>(
    input: &[u8],
    read: impl Fn(&[u8]) -> Result<T, ValueError>,
    write: impl Fn(&T) -> Result<Vec<u8>, ValueError>,
) {
    let Ok(value) = read(input) else { return };
    if let Ok(written) = write(&value) {
        assert_eq!(read(&written).expect("was written by us"), value);
    }
}
