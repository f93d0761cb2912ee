//! `/metrics`: what shards have published, as Prometheus reads it. Reads atomics and a few files of /proc; no shard hears of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::desk::Desk;
use super::text::{Kind, Page};
use crate::config::AuthMode;
use crate::reactor::counters::{Counters, Sample};
use crate::sys::clock;

pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render(&desk))
}

/// The whole page.
pub fn render(desk: &Desk) -> String {
    let mut page = Page::default();
    for (shard, counters) in desk.shards.counters.iter().enumerate() {
        shard_samples(&mut page, &shard.to_string(), counters);
    }
    process_samples(&mut page, desk);
    verifier_samples(&mut page, desk);
    limits(&mut page, desk);
    page.text()
}

fn shard_samples(page: &mut Page, shard: &str, counters: &Counters) {
    let mut add = |kind, sample: Sample| {
        let end = if kind == Kind::Counter { "_total" } else { "" };
        let mut labels = vec![("shard", shard)];
        labels.extend(sample.label);
        page.add(kind, &format!("ringroom_{}{end}", sample.family), sample.help, &labels, sample.value);
    };
    counters.counts.samples().into_iter().for_each(|sample| add(Kind::Counter, sample));
    counters.levels.samples().into_iter().for_each(|sample| add(Kind::Gauge, sample));
    for (reason, count) in counters.all_ends() {
        let labels = [("shard", shard), ("reason", reason)];
        page.add(Kind::Counter, "ringroom_closes_total", "Connections that ended, by why", &labels, count);
    }
    for (stage, histogram) in [("home", &counters.to_home), ("queue", &counters.to_queue), ("submit", &counters.to_submit)] {
        let help =
            "Time of a message for a stage of its way, sampled: to its room's home, to its members' queues, to the submission of a send";
        page.add_histogram("ringroom_stage_seconds", help, &[("shard", shard), ("stage", stage)], &histogram.seen());
    }
    let durations = [
        ("ringroom_delivery_seconds", "Time of a message from reading it to the submission of a send, sampled", &counters.end_to_end),
        ("ringroom_turn_seconds", "Time of a turn of the shard's loop, without the system call", &counters.turn_time),
        ("ringroom_loop_lag_seconds", "How long work that was ready may have waited for its turn", &counters.loop_lag),
    ];
    for (name, help, histogram) in durations {
        page.add_histogram(name, help, &[("shard", shard)], &histogram.seen());
    }
}

fn process_samples(page: &mut Page, desk: &Desk) {
    let shared = &desk.shards.shared;
    let mut gauge = |name, help, value: u64| page.add(Kind::Gauge, name, help, &[], value);
    gauge("ringroom_up_seconds", "Seconds since the server started", clock::monotonic_ns().saturating_sub(desk.started_ns) / 1_000_000_000);
    gauge("ringroom_draining", "1: this server is going", u64::from(desk.is_draining()));
    gauge("ringroom_shards", "Shards of this process", desk.shards.doors.len() as u64);
    let open = desk.facts.settings.auth.mode == AuthMode::Open && desk.facts.addresses.iter().any(|a| !a.ip().to_canonical().is_loopback());
    gauge("ringroom_insecure_open", "1: anybody who reaches a listening address can log in as anybody", u64::from(open));
    if let Some(bytes) = resident_bytes() {
        gauge("ringroom_process_resident_bytes", "Memory that the process has in RAM", bytes);
    }
    if let Some(files) = open_files() {
        gauge("ringroom_process_open_files", "Descriptors of the process", files);
    }
    let failed = shared.tasks_failed.load(Ordering::Relaxed);
    page.add(
        Kind::Counter,
        "ringroom_tasks_failed_total",
        "Tasks of shards that ended by themselves; the first ends the process",
        &[],
        failed,
    );
    if let Some(ms) = cpu_ms() {
        let text = format!("{}.{:03}", ms / 1_000, ms % 1_000);
        page.add(Kind::Counter, "ringroom_process_cpu_seconds_total", "Processor time of the process", &[], text);
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.add(Kind::Gauge, "ringroom_build_info", "What runs here", &version, 1);
}

fn verifier_samples(page: &mut Page, desk: &Desk) {
    let Some(pool) = &desk.pool else { return };
    let counts = pool.counts();
    let help = "Tokens judged by the verifier's threads, by what came of it";
    let outcomes = [
        ("checked", counts.checked),
        ("good", counts.good),
        ("remembered", counts.remembered),
        ("late", counts.late),
        ("panicked", counts.panics),
    ];
    for (outcome, count) in outcomes {
        page.add(Kind::Counter, "ringroom_tokens_total", help, &[("outcome", outcome)], count);
    }
    page.add(Kind::Gauge, "ringroom_verifier_queue", "Tokens that wait for a verifier's thread", &[], pool.waiting());
}

/// What the pools' levels are to be held against.
fn limits(page: &mut Page, desk: &Desk) {
    let (queues, limits) = (&desk.facts.settings.queues, &desk.facts.settings);
    let mut limit = |pool, value: u64| page.add(Kind::Gauge, "ringroom_pool_limit", "Most of a pool, per shard", &[("pool", pool)], value);
    limit("frames", queues.frames_max as u64);
    limit("gathers", queues.gather_buffers as u64);
    limit("chunks", queues.out_chunks_max as u64);
    limit("unread_bytes", queues.leftover_bytes_max as u64);
    limit("buffers", u64::from(limits.ring.buffers));
    limit("history_bytes", limits.history.shard_bytes as u64);
    page.add(Kind::Gauge, "ringroom_connections_limit", "Most connections of the process", &[], desk.facts.connections_max);
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Counting them would take a list of all; the directory's size is their number (Linux 6.2), and 0 before.
fn open_files() -> Option<u64> {
    std::fs::metadata("/proc/self/fd").ok().map(|directory| directory.len()).filter(|count| *count > 0)
}

fn cpu_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // A tick of /proc is 10 ms on every kernel that has io_uring.
    Some(ticks * 10)
}
