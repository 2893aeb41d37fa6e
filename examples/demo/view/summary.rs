//! The summary at the end.

use std::{collections::BTreeSet, fmt::Write};

use crate::{
    figures::Figures,
    journal::{Event, Journal},
    members::Members,
    script::Action,
};

pub(super) fn text(total: &Figures, members: &Members, journal: &Journal) -> String {
    let mut text = String::new();
    // A string takes what is written.
    let _written = write_requests(&mut text, total, journal)
        .and_then(|()| write_acts(&mut text, journal))
        .and_then(|()| write_spread(&mut text, total, members, journal));
    text
}

fn write_requests(text: &mut String, total: &Figures, journal: &Journal) -> std::fmt::Result {
    let seconds = journal.elapsed().as_secs_f64();
    writeln!(text, "{} requests in {seconds:.0} s", total.requests())?;
    writeln!(text, "  idempotent    {:6}, {} failed", total.idempotent, total.failed_idempotent)?;
    writeln!(text, "  others        {:6}, {} failed", total.others, total.failed_others)?;
    writeln!(text, "  sent again    {:6}, by the gateway", total.sent_again)?;
    let [median, late, latest] = [0.5, 0.99, 1.0].map(|share| total.quantile_ms(share));
    writeln!(text, "  answered in   p50 {median:.1} ms, p99 {late:.1} ms, at most {latest:.0} ms")
}

fn write_acts(text: &mut String, journal: &Journal) -> std::fmt::Result {
    let acts = |such: fn(&Action) -> bool| {
        journal.count(|event| matches!(event, Event::Action(act) if such(act)))
    };
    let killed = acts(|act| matches!(act, Action::Kill(_)));
    let drained = acts(|act| matches!(act, Action::Drain(_)));
    let joined = journal.count(|event| matches!(event, Event::Joined(_)));
    let restarts = acts(|act| matches!(act, Action::StartRegistry));
    write!(text, "  meanwhile     {killed} replicas killed, {drained} left, {joined} joined; ")?;
    writeln!(text, "registry killed and back {restarts}x")
}

/// Writes how even the load was on the replicas that served all the time.
fn write_spread(
    text: &mut String,
    total: &Figures,
    members: &Members,
    journal: &Journal,
) -> std::fmt::Result {
    let joined: BTreeSet<String> = journal
        .since(0)
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::Joined(id) => Some(id),
            _ => None,
        })
        .collect();
    for (service, statuses) in members.present() {
        let stayed = statuses.keys().filter(|id| !joined.contains(*id));
        let answers: Vec<u64> = stayed.map(|id| total.replica(id).answers).collect();
        if let (Some(least), Some(most)) = (answers.iter().min(), answers.iter().max()) {
            let count = answers.len();
            writeln!(
                text,
                "  {service:12}  {least} to {most} answers of each of {count} that stayed"
            )?;
        }
    }
    Ok(())
}
