use proptest::prelude::*;

use super::*;

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

#[test]
fn listen_accepts_every_form() {
    for (value, ip, port) in [
        ("1935", None, 1935),
        (":1935", None, 1935),
        ("0", None, 0),
        ("10.0.0.1:1935", Some(V4), 1935),
        ("[::1]:1935", Some(V6), 1935),
        ("localhost:80", Some(IpAddr::from([127, 0, 0, 1])), 80),
    ] {
        assert_eq!(listen(value), Ok(Listen { ip, port }), "{value}");
    }
}

#[test]
fn listen_says_what_is_wrong() {
    for value in [
        "",
        "x",
        "65536",
        "-1",
        "+1",
        "10.0.0.1",
        "10.0.0.1:",
        "::1",
        "[::1]",
        "[x]:1",
        "[10.0.0.1]:1",
        "a b:1",
    ] {
        assert_eq!(listen(value), Err(ValueError::NotListen), "{value:?}");
    }
    assert_eq!(listen("proxy.example:1935"), Err(ValueError::ListenName));
}

#[test]
fn durations_read_as_go_reads_them() {
    for (value, nanoseconds) in [
        ("0", 0),
        ("0s", 0),
        ("-0s", 0),
        ("20s", 20_000_000_000),
        ("+5s", 5_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("100ms", 100_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("3μs", 3_000),
        ("1h30m", 5_400_000_000_000),
        ("1h30m0.25s", 5_400_250_000_000),
        ("1.00000000000000000001h", 3_600_000_000_000),
        ("0.0000000019s", 1),
        ("9223372036854775807ns", 9_223_372_036_854_775_807),
    ] {
        assert_eq!(duration(value), Ok(Duration::from_nanos(nanoseconds)), "{value}");
    }
}

#[test]
fn durations_that_go_refuses_are_refused() {
    use ValueError::{Negative, NoUnit, NotDuration, TooLong};
    for (value, expected) in [
        ("", NotDuration),
        ("+", NotDuration),
        ("s", NotDuration),
        (".s", NotDuration),
        ("20", NoUnit),
        ("1m30", NoUnit),
        ("1.2.3s", NoUnit),
        ("3d", NotDuration),
        ("3 s", NotDuration),
        ("3S", NotDuration),
        ("-3s", Negative),
        ("9223372036854775808ns", TooLong),
        ("99999999999999999999s", TooLong),
        ("9999999999999h", TooLong),
    ] {
        assert_eq!(duration(value), Err(expected), "{value:?}");
    }
    assert_eq!(positive("0s"), Err(ValueError::NotPositive));
}

#[test]
fn durations_of_equal_length_are_equal() {
    for (value, expected) in [
        ("0", "0s"),
        ("90m", "1h30m"),
        ("3600s", "1h"),
        ("3601s", "1h1s"),
        ("60s", "1m"),
        ("10s", "10s"),
        ("1500ms", "1.5s"),
        ("100ms", "100ms"),
        ("1.5ms", "1500us"),
        ("1.5us", "1500ns"),
        ("60.01s", "1m0.01s"),
        ("600s", "10m"),
    ] {
        assert_eq!(duration(value).map(format_duration), Ok(expected.to_owned()), "{value}");
    }
}

proptest! {
    #[test]
    fn durations_round_trip(nanoseconds in 0..=i64::MAX.unsigned_abs()) {
        let original = Duration::from_nanos(nanoseconds);
        prop_assert_eq!(duration(&format_duration(original)), Ok(original));
    }

    #[test]
    fn short_durations_round_trip(nanoseconds in 0..10_000_000_000_u64) {
        let original = Duration::from_nanos(nanoseconds);
        prop_assert_eq!(duration(&format_duration(original)), Ok(original));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
        let _ = (duration(&text), listen(&text), source_ports(&text), net(&text), host(&text));
        let _ = (endpoint(&text), interface(&text), list(&text, ip), log_filter(&text));
    }

    #[test]
    fn duration_like_text_never_panics(text in "[+-]?([0-9]{0,25}\\.?[0-9]{0,25}(ns|us|ms|s|m|h)?){0,3}") {
        let _ = duration(&text);
    }
}

#[test]
fn switches_are_on_or_off() {
    for (value, expected) in [("on", true), ("off", false), ("false", false), ("no", false), ("0", false)] {
        assert_eq!(switch(value), Ok(expected), "{value}");
    }
    for value in ["true", "yes", "1", "On", "maybe"] {
        assert_eq!(switch(value), Err(ValueError::NotSwitch), "{value}");
    }
}

#[test]
fn source_ports_are_a_sane_range() {
    assert_eq!(source_ports("61000-65535"), Ok(61000..=65535));
    assert_eq!(source_ports("5000 - 5000"), Ok(5000..=5000));
    for (value, expected) in [
        ("61000", ValueError::NotRange),
        ("a-b", ValueError::NotRange),
        ("61000-70000", ValueError::NotRange),
        ("2000-1999", ValueError::ReversedRange),
        ("1023-2000", ValueError::PrivilegedRange),
    ] {
        assert_eq!(source_ports(value), Err(expected), "{value}");
    }
}

#[test]
fn numbers_stay_within_their_bounds() {
    let parse = number(1..=10_u32);
    assert_eq!(parse("10"), Ok(10));
    for value in ["0", "11", "-1", "1.0", "x", "99999999999"] {
        assert_eq!(parse(value), Err(ValueError::NotNumber { min: 1, max: 10 }), "{value}");
    }
}

#[test]
fn networks_may_be_single_addresses() {
    for (value, expected) in
        [("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128")]
    {
        assert_eq!(net(value).map(|net| net.to_string()), Ok(expected.to_owned()), "{value}");
    }
    assert_eq!(net("10.0.0.0/33"), Err(ValueError::NotNet));
}

#[test]
fn lists_name_the_item_that_is_wrong() {
    assert_eq!(list("10.0.0.1, ::1", ip), Ok(vec![V4, V6]));
    assert_eq!(list("10.0.0.1,,::1", ip), Err(ValueError::EmptyItem));
    assert_eq!(list("10.0.0.1,", ip), Err(ValueError::EmptyItem));
    let message = list("10.0.0.1,x", ip).map_err(|e| e.to_string());
    assert_eq!(message, Err("has the item \"x\", which is not an IP address".to_owned()));
}

#[test]
fn hosts_are_addresses_or_names() {
    for value in ["10.0.0.1", "::1", "live.example.com", "live.example.com.", "srs_1"] {
        assert_eq!(host(value), Ok(value.to_owned()));
    }
    for value in ["", "a b", "a..b", "a:1", "http://a", ".", "é"] {
        assert_eq!(host(value), Err(ValueError::NotHost), "{value:?}");
    }
}

#[test]
fn interfaces_have_names_the_kernel_accepts() {
    assert_eq!(interface("eth0.100"), Ok("eth0.100".to_owned()));
    for value in ["a/b", "eth 0", "eth0:1", "sixteen-letters!", ".", ".."] {
        assert_eq!(interface(value), Err(ValueError::NotInterface), "{value}");
    }
}

#[test]
fn defect_15_endpoints_end_in_a_port() {
    for value in [
        "1935",
        ":1935",
        "10.0.0.1:1935",
        "[::1]:1935",
        "udp://8000",
        "udp://10.0.0.1:8000",
        "udp://[::]:8000",
    ] {
        assert_eq!(endpoint(value), Ok(value.to_owned()));
    }
    for value in ["", "0", "x", "10.0.0.1", "udp://", "10.0.0.1:70000"] {
        assert_eq!(endpoint(value), Err(ValueError::NotEndpoint), "{value:?}");
    }
}

#[test]
fn words_are_exact() {
    assert_eq!(load_balancer("redis"), Ok(LoadBalancer::Redis));
    assert!(load_balancer("Memory").is_err());
    assert_eq!(datapath_mode("tc"), Ok(DatapathMode::Tc));
    assert!(datapath_mode("ebpf").is_err());
    assert_eq!(log_format("json"), Ok(LogFormat::Json));
    assert!(log_format("xml").is_err());
    assert_eq!(key_compat("go"), Ok(true));
    assert!(key_compat("on").is_err());
    assert!(log_filter("info,proxy_userspace=debug").is_ok());
    assert!(log_filter("proxy_userspace=loud").is_err());
}

/// The shortest form of a duration.
fn format_duration(duration: Duration) -> String {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 && nanoseconds > 0 {
        return match nanoseconds {
            n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{}us", n / 1_000),
            n => format!("{n}ns"),
        };
    }
    let mut text = String::new();
    for (count, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m")] {
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    let rest = format!("{}.{nanoseconds:09}", seconds % 60);
    match rest.trim_end_matches('0').trim_end_matches('.') {
        "" | "0" if !text.is_empty() => text,
        rest => format!("{text}{}s", if rest.is_empty() { "0" } else { rest }),
    }
}
