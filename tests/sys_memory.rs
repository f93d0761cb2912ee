//! Freed memory goes back to the system. Alone in its process, because it looks at the whole of it.

use ringroom::sys::memory::give_back;

/// Pages of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages = text.split(' ').nth(1).expect("the second number");
    pages.parse().expect("a number")
}

#[test]
fn freed_pages_between_used_ones_go_back() {
    // Small enough for the heap, with a piece that stays in use behind each.
    let (pieces, kept): (Vec<_>, Vec<_>) = (0..400).map(|_| (vec![1_u8; 64 * 1024], vec![1_u8; 64])).unzip();
    drop(pieces);
    let before = resident();
    give_back();
    // 25 MB were freed, 6,400 pages.
    assert!(!cfg!(target_env = "gnu") || resident() + 5_000 < before, "{before} -> {}", resident());
    drop(kept);
}
