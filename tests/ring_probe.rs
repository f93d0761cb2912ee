//! The probe against kernels that refuse: a seccomp filter on one thread plays them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::thread;

use ringroom::ring::{Bells, Errno, Features, ProbeError, Ring, RingSetup, probe};

/// A system call that fails, with what; `argument` narrows it to one value of the second argument.
#[derive(Clone, Copy)]
struct Refusal {
    call: libc::c_long,
    argument: Option<u32>,
    errno: i32,
}

const fn statement(code: u32, value: u32) -> libc::sock_filter {
    #[allow(clippy::cast_possible_truncation, reason = "BPF codes are 16 bits")]
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// Skips `otherwise` statements unless the loaded word is `value`.
const fn unless(value: u32, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter { jf: otherwise, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value) }
}

/// From now on the calling thread meets this refusal.
fn refuse(refusal: Refusal) {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const SECOND_ARGUMENT: u32 = 24;
    let errno = libc::SECCOMP_RET_ERRNO | refusal.errno.unsigned_abs();
    let call = u32::try_from(refusal.call).unwrap();
    let allow = statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW);
    let deny = statement(libc::BPF_RET, errno);
    let mut filter = match refusal.argument {
        None => vec![statement(LOAD, 0), unless(call, 1), deny, allow],
        Some(value) => vec![statement(LOAD, 0), unless(call, 3), statement(LOAD, SECOND_ARGUMENT), unless(value, 1), deny, allow],
    };
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: sets a flag of this thread, touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel copies the program, whose length is that of the live vector it points to.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}

/// The probe's answer on a thread with this refusal.
fn probe_refused(refusal: Refusal) -> ProbeError {
    let answer = thread::spawn(move || {
        refuse(refusal);
        probe()
    });
    answer.join().unwrap().unwrap_err()
}

fn setup(errno: i32) -> Refusal {
    Refusal { call: libc::SYS_io_uring_setup, argument: None, errno }
}

fn register(opcode: u32) -> Refusal {
    Refusal { call: libc::SYS_io_uring_register, argument: Some(opcode), errno: libc::EINVAL }
}

#[test]
fn this_kernel_is_supported() {
    let features = probe().unwrap();
    let line = features.to_string();
    assert!(line.starts_with("io_uring: defer_taskrun multishot buffer_ring") && line.lines().count() == 1);
    Ring::new(RingSetup::new(ringroom::ids::ShardId(0), features, Bells::new(1).unwrap())).unwrap();
}

#[test]
fn a_container_that_forbids_io_uring_is_named() {
    assert_eq!(probe_refused(setup(libc::EPERM)), ProbeError::Filtered(Errno(libc::EPERM)));
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    assert_eq!(probe_refused(setup(libc::ENOSYS)), ProbeError::Missing);
}

#[test]
fn a_lack_of_memory_is_named() {
    assert_eq!(probe_refused(setup(libc::ENOMEM)), ProbeError::Memory);
}

#[test]
fn a_kernel_without_deferred_task_work_is_too_old() {
    let error = probe_refused(setup(libc::EINVAL));
    assert!(error.to_string().contains("deferred task work (6.1)"), "{error}");
}

#[test]
fn a_kernel_without_buffer_rings_is_too_old() {
    const IORING_REGISTER_PBUF_RING: u32 = 22;
    let error = probe_refused(register(IORING_REGISTER_PBUF_RING));
    assert!(error.to_string().contains("ring of provided buffers (5.19)"), "{error}");
}

#[test]
fn a_ring_can_do_without_its_registration_with_the_thread() {
    const IORING_REGISTER_RING_FDS: u32 = 20;
    let made = thread::spawn(|| {
        refuse(register(IORING_REGISTER_RING_FDS));
        let setup = RingSetup::new(ringroom::ids::ShardId(0), Features::LEAST, Bells::new(1).unwrap());
        let mut ring = Ring::new(setup).unwrap();
        ringroom::ring::Io::enter(&mut ring, ringroom::ring::Wait::No).unwrap();
        ring.stats().enters
    });
    assert_eq!(made.join().unwrap(), 1);
}
