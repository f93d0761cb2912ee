//! The dashboard and the alerts name metrics that exist, and Prometheus' own checker accepts them and the page of a real server.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::http::get;
use support::{Client, Server};

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

/// Words that begin like our metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("ringroom_")).map(str::to_owned).collect()
}

/// The page of a server of each way to log in.
fn pages() -> Vec<String> {
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ed.pem");
    let jwt = format!("[auth]\nmode = \"jwt\"\nkeys = [\"{key}\"]\n");
    let page = |config: &str| {
        let server = Server::start_with(&["--shards", "2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], config, "true");
        let page = get(server.admin(), "/metrics").body;
        server.stop();
        page
    };
    vec![page(""), page(&jwt)]
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_exists() {
    let pages = pages();
    let there: BTreeSet<String> = pages.iter().flat_map(|page| metrics_in(page)).collect();
    for file in ["monitoring/dashboard.json", "monitoring/alerts.yml", "monitoring/alerts_test.yml"] {
        let named = metrics_in(&read(file));
        assert!(named.len() > 3, "{file}");
        let missing: Vec<&String> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
    for page in include_str!("../src/control/page.html").split('"').filter(|word| word.starts_with("ringroom_")) {
        let family = |suffix| there.contains(&format!("{page}{suffix}"));
        assert!(family("") || family("_bucket"), "the page asks for {page}");
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
    }
}

/// Runs promtool; `None` where it is not installed.
fn promtool(args: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(path("monitoring")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => {
            eprintln!("skipped: promtool can't be run ({why}); Debian has it in the package prometheus");
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn prometheus_accepts_the_alerts_and_they_fire_when_they_should() {
    for args in [&["check", "rules", "alerts.yml"][..], &["check", "config", "prometheus.yml"], &["test", "rules", "alerts_test.yml"]] {
        let Some((good, said)) = promtool(args, "") else { return };
        assert!(good, "promtool {args:?}: {said}");
    }
    // It can say no.
    let (good, _) = promtool(&["check", "metrics"], "a_metric 1\na_metric 1 1 1\n").unwrap();
    assert!(!good);
}

#[test]
fn prometheus_reads_the_page_of_a_server_and_finds_nothing_to_mend() {
    let server = Server::start_with(&["--shards", "2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], "", "true");
    let mut client = Client::member(server.address(), "ann", "lobby");
    client.send("lobby", "1");
    client.find("message");
    let page = get(server.admin(), "/metrics").body;
    server.stop().assert_clean();
    if let Some((good, said)) = promtool(&["check", "metrics"], &page) {
        assert!(good && said.trim().is_empty(), "{said}");
    }
}

#[test]
fn the_seccomp_profile_allows_io_uring_and_denies_the_rest() {
    let profile: Value = serde_json::from_str(&read("deploy/seccomp.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed: Vec<&str> = profile["syscalls"][0]["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(profile["syscalls"][0]["action"], "SCMP_ACT_ALLOW");
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "eventfd2", "mmap", "futex", "execve"] {
        assert!(allowed.contains(&name), "{name}");
    }
    for name in ["ptrace", "mount", "bpf", "kexec_load", "init_module", "unshare", "setns", "keyctl", "perf_event_open"] {
        assert!(!allowed.contains(&name), "{name}");
    }
    assert!(allowed.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
}

#[test]
fn systemd_accepts_the_unit() {
    let output = match Command::new("systemd-analyze").arg("verify").arg(path("deploy/ringroom.service")).output() {
        Ok(output) => output,
        Err(why) => return eprintln!("skipped: systemd-analyze can't be run ({why})"),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The program need not be installed where the test runs.
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("ringroom.service") && !line.contains("is not executable")).collect();
    assert!(wrong.is_empty(), "{said}");
}
