//! What became of each input.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::evaluate::Samples;
use crate::failure::Result;
use crate::output::{Align, Output, grouped, table};

/// Who computed an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnsweredBy {
    Server,
    /// The tail here: the link was gone, or too slow.
    Device,
    Nobody,
}

impl AnsweredBy {
    const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Device => "device",
            Self::Nobody => "nobody",
        }
    }
}

/// One input's way through both halves, as `--json` prints it.
#[derive(Serialize)]
pub struct Record {
    pub index: usize,
    pub answered_by: AnsweredBy,
    /// Later than the deadline, or not at all; never without a deadline.
    pub is_missed: bool,
    /// Where it was cut, and with --adapt how it was coded; nothing if nothing was sent.
    pub cut: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    /// Of the frame.
    pub bytes: usize,
    pub head_us: f64,
    pub encode_us: f64,
    /// The way there and back: what the server's own work does not explain.
    pub link_us: f64,
    /// Of it, handing the request to the operating system.
    pub send_us: f64,
    /// Of it, waiting for the tail.
    pub queue_us: f64,
    pub decode_us: f64,
    pub tail_us: f64,
    /// How often the request was sent.
    pub attempts: u32,
    /// From the input to the logits.
    pub total_us: f64,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub top: Vec<Class>,
    pub logits: Vec<f32>,
}

#[derive(Serialize)]
pub struct Class {
    class: usize,
    logit: f32,
}

impl Record {
    /// Nothing has happened yet.
    pub const fn unanswered() -> Self {
        Self {
            index: 0,
            answered_by: AnsweredBy::Nobody,
            is_missed: false,
            cut: String::new(),
            setting: None,
            bytes: 0,
            head_us: 0.0,
            encode_us: 0.0,
            link_us: 0.0,
            send_us: 0.0,
            queue_us: 0.0,
            decode_us: 0.0,
            tail_us: 0.0,
            attempts: 0,
            total_us: 0.0,
            error: None,
            top: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// The same, over now.
    pub fn ended(self, start: Instant, deadline: Option<Duration>) -> Self {
        let total = start.elapsed();
        let is_late = deadline.is_some_and(|deadline| total > deadline);
        let is_missed = is_late || deadline.is_some() && self.answered_by == AnsweredBy::Nobody;
        Self { total_us: microseconds(total), is_missed, ..self }
    }
}

pub fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The `count` classes of the largest logits, best first.
pub fn best(logits: &[f32], count: usize) -> Vec<Class> {
    let mut classes: Vec<_> =
        logits.iter().enumerate().map(|(class, &logit)| Class { class, logit }).collect();
    classes.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    classes.truncate(count);
    classes
}

/// Print all of them, and what they come to.
pub fn show(
    records: &[Record],
    top: usize,
    server: &str,
    deadline: Option<Duration>,
    output: &Output,
) -> Result<()> {
    let count = |by: AnsweredBy| records.iter().filter(|record| record.answered_by == by).count();
    let missed = records.iter().filter(|record| record.is_missed).count();
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "server": server,
            "deadline_ms": deadline.map(|deadline| deadline.as_secs_f64() * 1e3),
            "answered": {
                "server": count(AnsweredBy::Server),
                "device": count(AnsweredBy::Device),
                "nobody": count(AnsweredBy::Nobody),
            },
            "missed": missed,
            "requests": records,
        }));
    }
    print_table(records, top, output)?;
    let mut total = Samples::default();
    for record in records.iter().filter(|record| record.answered_by != AnsweredBy::Nobody) {
        total.record(Duration::from_secs_f64(record.total_us / 1e6));
    }
    let bytes: usize = records.iter().map(|record| record.bytes).sum();
    let mean = grouped((bytes as f64 / records.len() as f64).round() as u64);
    output.note(format!(
        "{} requests, {mean} bytes each on average, {} µs each as the median",
        grouped(records.len() as u64),
        grouped(total.median_us().round() as u64)
    ));
    let (here, nobody) = (count(AnsweredBy::Device), count(AnsweredBy::Nobody));
    if let Some(deadline) = deadline {
        output.note(format!(
            "{} answered by the server, {} here, {} not at all; {} missed the deadline of {deadline:?}",
            grouped(count(AnsweredBy::Server) as u64),
            grouped(here as u64),
            grouped(nobody as u64),
            grouped(missed as u64),
        ));
    } else if here > 0 {
        output.note(format!("{} of them answered here, without the server", grouped(here as u64)));
    }
    Ok(())
}

fn print_table(records: &[Record], top: usize, output: &Output) -> Result<()> {
    let top = if top == 1 { "class (logit)".to_owned() } else { format!("best {top} classes (logit)") };
    let has_settings = records.iter().any(|record| record.setting.is_some());
    let mut columns = vec![
        ("#", Align::Right),
        ("answered by", Align::Left),
        ("bytes", Align::Right),
        ("head µs", Align::Right),
        ("encode µs", Align::Right),
        ("link µs", Align::Right),
        ("decode µs", Align::Right),
        ("tail µs", Align::Right),
        ("total µs", Align::Right),
        (&top, Align::Left),
    ];
    if has_settings {
        columns.insert(2, ("sent as", Align::Left));
    }
    let mut table = table(&columns);
    let whole = |microseconds: f64| grouped(microseconds.round() as u64);
    for record in records {
        let best: Vec<_> =
            record.top.iter().map(|best| format!("{} ({:.2})", best.class, best.logit)).collect();
        let late = if record.is_missed && record.error.is_none() { ", late" } else { "" };
        let mut row = vec![
            record.index.to_string(),
            format!("{}{late}", record.answered_by.name()),
            grouped(record.bytes as u64),
            whole(record.head_us),
            whole(record.encode_us),
            whole(record.link_us),
            whole(record.decode_us),
            whole(record.tail_us),
            whole(record.total_us),
            record.error.clone().unwrap_or_else(|| best.join(", ")),
        ];
        if has_settings {
            let setting = record.setting.as_deref().unwrap_or_default();
            row.insert(2, format!("{} {setting}", record.cut).trim().to_owned());
        }
        table.add_row(row);
    }
    output.print(table)
}
