//! Start-up checks: settings meet the machine, before any thread is started.
//!
//! Everything that can be known to fail is found here, so that a server which says it is ready has its CPUs, its descriptors and its port. Raises
//! the soft limits of the process; changes nothing else that outlives the returned [`Plan`]. In: [`Settings`]. Out: the plan with the listeners
//! already open (a port that was free a moment ago is no promise), or a [`StartError`] with its exit code and one line: what, likely cause, fix.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use super::plane::PlanePlan;
use super::takeover::Takeover;
use super::{StartError, exit};
use crate::auth::{KeyError, KeySet};
use crate::config::{Auth, AuthMode, Ring, Server, Settings, print_cpus};
use crate::ids::UserName;
use crate::limits::SHARDS_MAX;
use crate::ring::{self, Features, ProbeError};
use crate::sys::affinity;
use crate::sys::rlimit::{self, Limit, Resource};
use crate::sys::sockets::{self, Listen};

/// What the shards are made from.
#[derive(Debug)]
pub struct Plan {
    /// For each shard its own listener on each of `addresses`, in that order.
    pub listeners: Vec<Vec<OwnedFd>>,
    /// What is listened on; a port 0 has become the port the kernel chose.
    pub addresses: Vec<SocketAddr>,
    pub shards: u16,
    /// For each shard the CPU it is pinned to; `None`: not pinned.
    pub cpus: Vec<Option<usize>>,
    /// What this kernel's io_uring has.
    pub features: Features,
    /// This server's name in `welcome`.
    pub node: String,
    /// Connections of the whole process; never 0.
    pub connections_max: usize,
    pub admin: PlanePlan,
    /// The server whose port this one takes over.
    pub takeover: Option<Takeover>,
    /// What is not as it should be and yet no reason to refuse, for the log.
    pub warnings: Vec<String>,
}

/// Descriptors that are no connections: standard streams, log, signals, supervisor, what libraries open.
const FILES_RESERVE: u64 = 64;
/// Descriptors of a shard beside its listeners and connections: its ring, the executor's three, doorbell, timers.
const FILES_PER_SHARD: u64 = 12;
/// A server for fewer connections is a mistake in the limits.
const CONNECTIONS_MIN: u64 = 16;
/// Below this glommio refuses to make an executor.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;
/// What an executor registers with its three rings.
const LOCKED_BYTES_PER_SHARD: u64 = 3 * 64 * 1024;

impl Plan {
    /// The one line at start, which scripts wait for.
    pub fn ready_line(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let pinned: Vec<usize> = self.cpus.iter().flatten().copied().collect();
        let place = match (pinned.is_empty(), pinned.len()) {
            (true, _) => "not pinned".to_owned(),
            (false, 1) => format!("on CPU {}", pinned[0]),
            (false, _) => format!("on CPUs {}", print_cpus(&pinned)),
        };
        let noun = if self.shards == 1 { "shard" } else { "shards" };
        let (list, shards, max) = (addresses.join(", "), self.shards, self.connections_max);
        let admin: String = self.admin.addresses.iter().map(|address| format!("; admin on http://{address}")).collect();
        format!("ringroom ready on {list}: {shards} {noun} {place}, up to {max} connections; {}{admin}\n", self.features)
    }
}

/// How the server comes to its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// They have to be free.
    Fresh,
    /// Another server of this user listens on them, and is to make room.
    Takeover,
}

/// Checks the machine against the settings and opens the listeners.
pub fn check(settings: &Settings, start: Start) -> Result<Plan, StartError> {
    settings.validate().map_err(|error| StartError::new(exit::USAGE, error.to_string()))?;
    let mut warnings = settings.warnings();
    let cpus = place(&settings.server, &available()?, &mut warnings)?;
    let shards = u16::try_from(cpus.len()).expect("place gives at most SHARDS_MAX shards");
    check_locked_memory(shards, &mut warnings)?;
    let files = rlimit::raise(Resource::Files).map_err(|why| system("the limit of open files", &why))?;
    let connections_max = connections(settings, shards, files)?;
    let features = ring::probe().map_err(|error| unusable(&error))?;
    check_backlog(&settings.ring, &mut warnings);
    // Connections come to a listener as soon as it is open: what can fail has to fail before.
    check_keys(&settings.auth)?;
    let admin = PlanePlan::make(settings)?;
    let mut takeover = match start {
        Start::Fresh => None,
        Start::Takeover => Some(Takeover::find(&settings.server.listen, shards)?),
    };
    let (addresses, listeners) = open(settings, shards, takeover.as_mut())?;
    Ok(Plan { listeners, addresses, shards, cpus, features, node: node(&settings.server), connections_max, admin, takeover, warnings })
}

/// Which CPU each shard is pinned to.
fn place(server: &Server, available: &[usize], warnings: &mut Vec<String>) -> Result<Vec<Option<usize>>, StartError> {
    if let Some(cpu) = server.cpus.iter().find(|cpu| !available.contains(cpu)) {
        return Err(StartError::new(exit::CPU, absent(*cpu, available)));
    }
    let chosen = if server.cpus.is_empty() { available } else { &server.cpus };
    let shards = if server.shards == 0 { chosen.len().min(SHARDS_MAX) } else { server.shards };
    if shards <= chosen.len() {
        return Ok(chosen[..shards].iter().copied().map(Some).collect());
    }
    warnings.push(format!("{shards} shards share {} CPUs, so none is pinned: latency will suffer", chosen.len()));
    Ok(vec![None; shards])
}

fn absent(cpu: usize, available: &[usize]) -> String {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let (online, allowed) = (online.trim(), print_cpus(available));
    let there = crate::config::parse_cpus(online).is_ok_and(|list| list.contains(&cpu));
    if there {
        format!(
            "CPU {cpu} is there, but this process may use only {allowed}: look at taskset, the container's cpuset or CPUAffinity=, or choose among those"
        )
    } else {
        format!("CPU {cpu} is not there: this host has {online} and this process may use {allowed}; choose among those with --cpus")
    }
}

fn available() -> Result<Vec<usize>, StartError> {
    let cpus = affinity::available().map_err(|why| system("the CPUs of this process", &why))?;
    Ok(cpus.into_iter().map(affinity::Cpu::index).collect())
}

/// How many connections the descriptors allow.
fn connections(settings: &Settings, shards: u16, files: Limit) -> Result<usize, StartError> {
    let listeners = settings.server.listen.len() as u64;
    let reserve = FILES_RESERVE + u64::from(shards) * (FILES_PER_SHARD + listeners);
    let room = files.soft.saturating_sub(reserve);
    let wanted = settings.limits.connections_max as u64;
    let needed = wanted.max(CONNECTIONS_MIN);
    if room < needed {
        let (soft, all) = (files.soft, needed + reserve);
        return Err(StartError::new(
            exit::LIMIT,
            format!(
                "{needed} connections on {shards} shards need {all} open files and the limit is {soft}: raise it (ulimit -n {all}, LimitNOFILE={all}), or lower connections_max or shards"
            ),
        ));
    }
    let slots = settings.limits.connections_per_shard_max.saturating_mul(usize::from(shards));
    let allowed = if wanted == 0 { room } else { wanted };
    Ok(usize::try_from(allowed).unwrap_or(usize::MAX).min(slots))
}

fn check_locked_memory(shards: u16, warnings: &mut Vec<String>) -> Result<(), StartError> {
    let limit = rlimit::raise(Resource::LockedMemory).map_err(|why| system("the limit of locked memory", &why))?;
    judge_locked_memory(shards, limit, warnings, rlimit::may_lock_any_memory)
}

fn judge_locked_memory(shards: u16, limit: Limit, warnings: &mut Vec<String>, free: impl Fn() -> bool) -> Result<(), StartError> {
    let wanted = (u64::from(shards) * LOCKED_BYTES_PER_SHARD).max(LOCKED_BYTES_MIN);
    let (kib, wanted_kib) = (limit.soft / 1024, wanted / 1024);
    if limit.soft < LOCKED_BYTES_MIN {
        let message = format!(
            "locked memory is limited to {kib} KiB and {wanted_kib} KiB are needed: raise it (ulimit -l {wanted_kib}, LimitMEMLOCK={wanted})"
        );
        return Err(StartError::new(exit::LIMIT, message));
    }
    if limit.soft < wanted && !free() {
        warnings.push(format!("locked memory is limited to {kib} KiB, {wanted_kib} KiB would serve all shards (ulimit -l {wanted_kib})"));
    }
    Ok(())
}

fn check_backlog(ring: &Ring, warnings: &mut Vec<String>) {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    let Ok(most) = text.trim().parse::<u32>() else { return };
    if most < ring.backlog {
        warnings.push(format!(
            "net.core.somaxconn cuts the backlog of {} to {most} (sysctl -w net.core.somaxconn={})",
            ring.backlog, ring.backlog
        ));
    }
}

/// Too little of something is the operator's limit, not the kernel's want.
fn unusable(error: &ProbeError) -> StartError {
    let exit = match error {
        ProbeError::Memory | ProbeError::Files(_) => exit::LIMIT,
        ProbeError::Missing
        | ProbeError::Disabled { .. }
        | ProbeError::Filtered(_)
        | ProbeError::TooOld { .. }
        | ProbeError::Failed { .. } => exit::IO_URING,
    };
    StartError::new(exit, error.to_string())
}

type Opened = (Vec<SocketAddr>, Vec<Vec<OwnedFd>>);

/// The keys can be read, where tokens are asked for.
fn check_keys(auth: &Auth) -> Result<(), StartError> {
    if auth.mode == AuthMode::Open {
        return Ok(());
    }
    KeySet::load(auth).map(drop).map_err(|error| {
        let exit = if matches!(error, KeyError::Unreadable(_)) { exit::NO_INPUT } else { exit::USAGE };
        StartError::new(exit, error.to_string())
    })
}

/// Opens each shard's listener on each address, after all of them were found free or held by the server that is taken over.
fn open(settings: &Settings, shards: u16, mut takeover: Option<&mut Takeover>) -> Result<Opened, StartError> {
    for address in &settings.server.listen {
        // Port 0 is whatever is free.
        let held = takeover.as_ref().is_some_and(|takeover| takeover.holds(*address));
        if address.port() != 0 && !held {
            sockets::probe_port(*address).map_err(|why| refused(*address, &why))?;
        }
    }
    let mut addresses = settings.server.listen.clone();
    let mut listeners = Vec::new();
    for _ in 0..shards {
        let mut own = Vec::new();
        for address in &mut addresses {
            let listener = open_one(*address, &settings.ring).map_err(|why| refused(*address, &why))?;
            // The first shard's port 0 became a real port, which the others share.
            *address = sockets::local_address(listener.as_fd()).map_err(|why| refused(*address, &why))?;
            if let Some(takeover) = &mut takeover {
                takeover.opened(*address, &listener).map_err(|why| refused(*address, &why))?;
            }
            own.push(listener);
        }
        listeners.push(own);
    }
    Ok((addresses, listeners))
}

fn open_one(address: SocketAddr, sizes: &Ring) -> io::Result<OwnedFd> {
    let listener = sockets::listener(Listen { address, notsent_lowat_bytes: sizes.notsent_lowat_bytes })?;
    // listen(2) on a listening socket sets its backlog anew.
    let backlog = i32::try_from(sizes.backlog).unwrap_or(i32::MAX);
    SockRef::from(&listener).listen(backlog)?;
    Ok(listener)
}

pub(super) fn refused(address: SocketAddr, why: &io::Error) -> StartError {
    let port = address.port();
    let (exit, cause) = match why.raw_os_error() {
        Some(libc::EADDRINUSE) => (
            exit::ADDRESS,
            format!(
                "somebody uses the port already, maybe another ringroom (see: ss -ltnp 'sport = :{port}'); stop it, choose another port, or take over from it (--takeover)"
            ),
        ),
        Some(libc::EACCES | libc::EPERM) => (
            exit::ADDRESS,
            "this user may not use the port: choose one above 1023, or grant CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep)"
                .to_owned(),
        ),
        Some(libc::EADDRNOTAVAIL) => (exit::ADDRESS, "no interface of this host has that address (see: ip -brief address)".to_owned()),
        Some(libc::EAFNOSUPPORT) => (exit::ADDRESS, "this host has that address family switched off".to_owned()),
        Some(libc::EMFILE | libc::ENFILE) => (exit::LIMIT, "out of descriptors: raise the limit of open files (ulimit -n)".to_owned()),
        _ => (exit::ADDRESS, format!("{why}; choose another address")),
    };
    StartError::new(exit, format!("can't listen on {address}: {cause}"))
}

/// A call that fails only where the system forbids it.
fn system(what: &str, why: &io::Error) -> StartError {
    if why.kind() == io::ErrorKind::PermissionDenied {
        let message = format!("{what}: {why}; the container's or service's sandbox forbids the call");
        return StartError::new(exit::PERMISSION, message);
    }
    StartError::new(exit::INTERNAL, format!("{what}: {why}"))
}

/// The name in `welcome`: the configured one, or the host's with what names may not hold replaced.
fn node(server: &Server) -> String {
    if !server.node.is_empty() {
        return server.node.clone();
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name_of_host(host.trim())
}

fn name_of_host(host: &str) -> String {
    let good = |c: char| UserName::parse(c.encode_utf8(&mut [0; 4])).is_ok();
    let name: String = host.chars().map(|c| if good(c) { c } else { '-' }).take(UserName::BYTES_MAX).collect();
    if name.is_empty() { "ringroom".to_owned() } else { name }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn server(shards: usize, cpus: &[usize]) -> Server {
        Server { shards, cpus: cpus.to_vec(), ..Server::default() }
    }

    fn placed(shards: usize, cpus: &[usize]) -> Result<(Vec<Option<usize>>, usize), u8> {
        let mut warnings = Vec::new();
        let cpus = place(&server(shards, cpus), &[0, 1, 4, 5], &mut warnings).map_err(|error| error.exit)?;
        Ok((cpus, warnings.len()))
    }

    #[test]
    fn shards_go_to_the_cpus_asked_for_else_to_the_ones_allowed() {
        assert_eq!(placed(0, &[]), Ok((vec![Some(0), Some(1), Some(4), Some(5)], 0)));
        assert_eq!(placed(3, &[]), Ok((vec![Some(0), Some(1), Some(4)], 0)));
        assert_eq!(placed(0, &[5, 0]), Ok((vec![Some(5), Some(0)], 0)));
        assert_eq!(placed(1, &[5, 0]), Ok((vec![Some(5)], 0)));
        assert_eq!(placed(0, &[2]), Err(exit::CPU));
    }

    #[test]
    fn more_shards_than_cpus_run_unpinned_with_a_warning() {
        assert_eq!(placed(8, &[]), Ok((vec![None; 8], 1)));
    }

    #[test]
    fn an_absent_cpu_is_told_apart_from_a_forbidden_one() {
        assert!(absent(1_000, &[0]).contains("CPU 1000 is not there"));
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        let first = crate::config::parse_cpus(online.trim()).unwrap()[0];
        assert!(absent(first, &[777]).contains("may use only 777"));
    }

    fn limit(soft: u64) -> Limit {
        Limit { soft, hard: soft }
    }

    #[test]
    fn connections_leave_room_for_everything_else() {
        let mut settings = Settings::default();
        let of = |settings: &Settings, shards, files| connections(settings, shards, limit(files)).map_err(|error| error.exit);
        assert_eq!(of(&settings, 1, 1_024), Ok(1_024 - 64 - 13));
        assert_eq!(of(&settings, 2, 256), Ok(256 - 64 - 26));
        assert_eq!(of(&settings, 1, 80), Err(exit::LIMIT));
        assert_eq!(of(&settings, 1, 0), Err(exit::LIMIT));
        assert_eq!(of(&settings, 1, Limit::INFINITY), Ok(1_000_000));
        settings.limits.connections_max = 500;
        assert_eq!(of(&settings, 1, 1_024), Ok(500));
        assert_eq!(of(&settings, 1, 512), Err(exit::LIMIT));
        settings.limits.connections_per_shard_max = 100;
        assert_eq!(of(&settings, 2, 1_024), Ok(200));
    }

    #[test]
    fn too_little_locked_memory_is_refused_and_scarce_one_warned_about() {
        let judge = |shards, bytes, free| {
            let mut warnings = Vec::new();
            judge_locked_memory(shards, limit(bytes), &mut warnings, || free).map(|()| warnings.len()).map_err(|error| error.exit)
        };
        assert_eq!(judge(1, 64 * 1024, true), Err(exit::LIMIT));
        assert_eq!(judge(1, 512 * 1024, false), Ok(0));
        assert_eq!(judge(8, 512 * 1024, false), Ok(1));
        assert_eq!(judge(8, 512 * 1024, true), Ok(0));
        assert_eq!(judge(256, Limit::INFINITY, false), Ok(0));
    }

    fn local(shards: usize, listen: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.server.shards = shards;
        settings.server.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        settings
    }

    #[test]
    fn each_shard_gets_a_listener_on_each_address() {
        let plan = check(&local(3, &["127.0.0.1:0", "127.0.0.1:0"]), Start::Fresh).unwrap();
        assert_eq!(plan.listeners.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        assert!(plan.addresses.iter().all(|address| address.port() != 0));
        for own in &plan.listeners {
            let bound: Vec<SocketAddr> = own.iter().map(|fd| sockets::local_address(fd.as_fd()).unwrap()).collect();
            assert_eq!(bound, plan.addresses);
        }
        assert_eq!((plan.shards, plan.cpus.len()), (3, 3));
        assert!(plan.connections_max > 0 && !plan.node.is_empty());
    }

    #[test]
    fn a_second_server_on_the_port_is_refused() {
        let first = check(&local(1, &["127.0.0.1:0"]), Start::Fresh).unwrap();
        let taken = first.addresses[0].to_string();
        let error = check(&local(1, &[&taken]), Start::Fresh).unwrap_err();
        assert_eq!(error.exit, exit::ADDRESS);
        assert!(error.message.contains(&taken) && error.message.contains("another ringroom"), "{error}");
        drop(first);
        assert!(check(&local(1, &[&taken]), Start::Fresh).is_ok());
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        // 192.0.2.0/24 is for documentation (RFC 5737): no host has it.
        let mut settings = local(1, &["192.0.2.1:7777"]);
        assert_eq!(check(&settings, Start::Fresh).unwrap_err().exit, exit::USAGE);
        settings.auth.insecure_open = true;
        let error = check(&settings, Start::Fresh).unwrap_err();
        assert_eq!(error.exit, exit::ADDRESS);
        assert!(error.message.contains("no interface"), "{error}");
    }

    #[test]
    fn no_io_uring_and_too_little_for_it_are_told_apart() {
        let code = |error: ProbeError| unusable(&error).exit;
        assert_eq!(code(ProbeError::Missing), exit::IO_URING);
        assert_eq!(code(ProbeError::Disabled { value: 2 }), exit::IO_URING);
        assert_eq!(code(ProbeError::TooOld { missing: "x" }), exit::IO_URING);
        assert_eq!(code(ProbeError::Memory), exit::LIMIT);
        assert!(unusable(&ProbeError::Disabled { value: 1 }).message.contains("kernel.io_uring_disabled"));
    }

    #[test]
    fn a_hosts_name_becomes_a_name_of_the_protocol() {
        assert_eq!(name_of_host("chat-1.example"), "chat-1.example");
        assert_eq!(name_of_host("höst 1"), "h-st-1");
        assert_eq!(name_of_host(""), "ringroom");
        assert_eq!(name_of_host(&"x".repeat(200)).len(), 64);
    }

    #[test]
    fn the_ready_line_names_addresses_shards_and_cpus() {
        let mut plan = check(&local(2, &["127.0.0.1:0"]), Start::Fresh).unwrap();
        plan.addresses = vec!["[::1]:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        plan.features = Features::LEAST;
        (plan.connections_max, plan.cpus) = (9, vec![Some(0), Some(1)]);
        assert_eq!(
            plan.ready_line(),
            "ringroom ready on [::1]:1, 127.0.0.1:2: 2 shards on CPUs 0-1, up to 9 connections; io_uring: defer_taskrun multishot buffer_ring doorbell=eventfd\n"
        );
        plan.cpus = vec![None, None];
        assert!(plan.ready_line().contains("2 shards not pinned"));
    }
}
