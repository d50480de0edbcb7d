//! The outcome for the terminal: a row for each protocol, and what it cost.

use super::numbers::{cpu, grouped, joined, percent, span};
use super::protocols::ProtocolRow;
use super::report::Report;
use crate::proxy::{Engine, Interface};

/// All tables of a run.
pub(super) fn table(report: &Report) -> String {
    let mut parts = vec![heading(report), protocols(report)];
    if report.engine.is_kernel() {
        parts.push(interfaces(&report.interfaces));
    }
    parts.extend([processors(report), ends(report), in_short(report)]);
    parts.join("\n\n")
}

fn heading(report: &Report) -> String {
    let counted = report.after.0.as_secs_f64();
    let before = match report.before {
        Some((duration, _)) => {
            format!(", after {:.0} s with the kernel path held off", duration.as_secs_f64())
        }
        None => String::new(),
    };
    let ready = report.everyone_after.as_secs_f64();
    format!(
        "engine {}: everyone had media after {ready:.0} s; {counted:.0} s counted{before}",
        report.engine.as_str()
    )
}

fn protocols(report: &Report) -> String {
    let titles = ["protocol", "clients", "origins", "received", "", "missing", "carried by", "first picture"];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(report.protocols().iter().map(protocol));
    layout(&rows, &[0, 2, 4, 6])
}

fn protocol(row: &ProtocolRow) -> [String; 8] {
    [
        row.name.to_owned(),
        row.clients.to_string(),
        joined(&row.origins),
        grouped(row.received),
        row.unit.to_owned(),
        grouped(row.missing),
        row.carried.clone(),
        span(&row.first_frames),
    ]
}

fn shown_share(engine: Engine, share: Option<f64>) -> String {
    share.filter(|_| engine.is_kernel()).map_or_else(|| "-".to_owned(), percent)
}

fn interfaces(interfaces: &[Interface]) -> String {
    let mut rows = vec![["interface", "engine", "mode", "why"].map(str::to_owned)];
    rows.extend(interfaces.iter().map(|found| {
        let note = found.note.clone().unwrap_or_default();
        [found.name.clone(), found.engine.clone(), found.mode.clone(), note]
    }));
    layout(&rows, &[0, 1, 2, 3])
}

fn processors(report: &Report) -> String {
    let mut rows = vec![
        vec!["processor time".to_owned()],
        vec!["proxy process, of one processor".to_owned()],
        vec!["whole machine".to_owned()],
        vec!["of it in software interrupts".to_owned()],
    ];
    let before = report.before.map(|(_, before)| ("kernel path off", before));
    let title = if report.engine.is_kernel() { "kernel path on" } else { "userspace" };
    for (title, times) in before.into_iter().chain([(title, report.after.1)]) {
        let cells = [title.to_owned(), cpu(times.process), cpu(times.machine), cpu(times.softirq)];
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
    }
    layout(&rows, &[0])
}

fn ends(report: &Report) -> String {
    let ends = &report.ends;
    let [to_origins, to_clients] = ends.lost.map(|lost| grouped(lost.max(0).unsigned_abs()));
    let [xdp, tc] = report.forwarded.map(grouped);
    let mut rows = vec![
        ["WebRTC and SRT at both ends".to_owned(), format!("{} datagrams sent", grouped(ends.sent))],
        [String::new(), format!("{} arrived", grouped(ends.arrived))],
        [
            String::new(),
            format!("{to_origins} not at the origins, {to_clients} not at the clients (or in flight)"),
        ],
        [String::new(), format!("{} RTP sequence numbers missing, whole run", grouped(report.missing()))],
        ["in between".to_owned(), format!("{} relayed by userspace", grouped(ends.relayed))],
        [String::new(), format!("{xdp} frames forwarded by XDP, {tc} by TC")],
    ];
    if ends.no_room > 0 {
        rows.insert(
            2,
            [String::new(), format!("{} of these found their reader too slow", grouped(ends.no_room))],
        );
    }
    if report.engine.is_kernel() {
        rows.push(["offloaded".to_owned(), shown_share(report.engine, ends.offloaded)]);
    }
    layout(&rows, &[0, 1])
}

/// What to remember.
fn in_short(report: &Report) -> String {
    let datagrams = grouped(report.ends.arrived);
    let lost = match (report.missing(), report.missing_by_srt(), report.missing_over_tcp()) {
        (0, 0, 0) => "nothing was lost by any protocol".to_owned(),
        (packets, by_srt, pictures) => format!(
            "{} RTP packets, {} SRT packets and {} pictures over TCP were lost",
            grouped(packets),
            grouped(by_srt),
            grouped(pictures)
        ),
    };
    let after = cpu(report.after.1.process);
    match (report.ends.offloaded, report.before) {
        (Some(share), Some((_, before))) => format!(
            "in short: the kernel carried {} of {datagrams} datagrams, {lost}, and the proxy process needed {after} of a \
             processor instead of {}",
            percent(share),
            cpu(before.process)
        ),
        _ => format!(
            "in short: userspace relayed {datagrams} datagrams, {lost}, and needed {after} of a processor"
        ),
    }
}

/// Columns as wide as their widest cell: those in `left` to the left, the others to the right.
pub(super) fn layout<R: AsRef<[String]>>(rows: &[R], left: &[usize]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
        cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| line(row.as_ref(), &widths, left));
    lines.collect::<Vec<_>>().join("\n")
}

fn line(cells: &[String], widths: &[usize], left: &[usize]) -> String {
    let cells = cells.iter().zip(widths).enumerate();
    let padded =
        cells.map(
            |(at, (cell, width))| {
                if left.contains(&at) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            },
        );
    format!("  {}", padded.collect::<Vec<_>>().join("   ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["stream", "packets"], ["a", "1,234,567"], ["longer-name", "8"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let expected = "  stream          packets\n  a             1,234,567\n  longer-name           8";
        assert_eq!(layout(&rows, &[0]), expected);
    }

    #[test]
    fn a_short_row_is_no_trouble() {
        let rows = [vec!["a".to_owned()], vec!["b".to_owned(), "1".to_owned()]];
        assert_eq!(layout(&rows, &[0]), "  a\n  b   1");
    }

    #[test]
    fn a_protocol_is_a_row() {
        let row = ProtocolRow {
            name: "HTTP-FLV",
            clients: 2,
            origins: ['A', 'B'].into(),
            received: 1234,
            unit: "pictures",
            missing: 0,
            carried: "copy".to_owned(),
            first_frames: vec![180.0, 220.0],
        };
        let expected = ["HTTP-FLV", "2", "A + B", "1,234", "pictures", "0", "copy", "180 to 220 ms"];
        assert_eq!(protocol(&row), expected);
    }

    #[test]
    fn userspace_promises_no_share() {
        assert_eq!(shown_share(Engine::Userspace, Some(0.2)), "-");
        assert_eq!(shown_share(Engine::Xdp, Some(0.2)), "20.00 %");
    }
}
