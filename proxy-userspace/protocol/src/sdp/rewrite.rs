//! Puts the proxy's candidates where the origin's were.

use std::mem;

use super::{HostCandidate, OurCandidates, Transport, candidate_value, is_media, lines};

/// The priority of a host candidate that nothing outranks (RFC 8445, section 5.1.2.1).
const HIGHEST_PRIORITY: u32 = 2_130_706_431;

pub(super) fn replace_candidates(text: &str, ours: &OurCandidates<'_>) -> String {
    let mut rewriter = Rewriter::new(text, ours);
    for line in lines(text) {
        rewriter.copy(line);
    }
    rewriter.finish()
}

struct Rewriter {
    /// The lines of our candidates.
    block: String,
    line_end: &'static str,
    /// No media section of the origin lists a candidate, so that none shows where ours belong.
    at_section_end: bool,
    /// The current section is a media section that does not have our candidates yet.
    is_due: bool,
    rewritten: String,
}

impl Rewriter {
    fn new(text: &str, ours: &OurCandidates<'_>) -> Self {
        let line_end = line_end(text);
        let mut media_lines = lines(text).skip_while(|line| !is_media(line));
        Self {
            block: candidate_lines(ours, line_end),
            line_end,
            at_section_end: !media_lines.any(is_candidate),
            is_due: false,
            rewritten: String::with_capacity(text.len() + 256),
        }
    }

    fn copy(&mut self, line: &str) {
        if is_candidate(line) {
            self.place();
            return;
        }
        if is_media(line) {
            self.end_section();
            self.is_due = true;
        }
        self.rewritten.push_str(line);
    }

    fn finish(mut self) -> String {
        self.end_section();
        self.rewritten
    }

    fn end_section(&mut self) {
        if self.at_section_end {
            self.place();
        }
    }

    fn place(&mut self) {
        if !mem::take(&mut self.is_due) {
            return;
        }
        if !self.rewritten.ends_with('\n') {
            self.rewritten.push_str(self.line_end);
        }
        self.rewritten.push_str(&self.block);
    }
}

/// The line end of the first line stands for all.
fn line_end(text: &str) -> &'static str {
    if lines(text).next().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" }
}

fn is_candidate(line: &str) -> bool {
    candidate_value(line).is_some()
}

/// In the form SRS writes, which every client of SRS is known to read. UDP outranks TCP (RFC 6544, section 4.2).
fn candidate_lines(ours: &OurCandidates<'_>, line_end: &str) -> String {
    let udp = ours.udp.iter().map(|candidate| (Transport::Udp, candidate));
    let all = udp.chain(ours.tcp.iter().map(|candidate| (Transport::Tcp, candidate)));
    let priorities = (0..=HIGHEST_PRIORITY).rev();
    all.zip(priorities)
        .enumerate()
        .map(|(foundation, ((transport, HostCandidate { ip, port }), priority))| {
            let (name, extension) = match transport {
                Transport::Udp => ("udp", "generation 0"),
                Transport::Tcp => ("tcp", "tcptype passive"),
            };
            format!("a=candidate:{foundation} 1 {name} {priority} {ip} {port} typ host {extension}{line_end}")
        })
        .collect()
}
