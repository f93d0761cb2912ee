//! Lists of CPUs as people and the kernel write them: `0-3,6`.
//!
//! The order is kept, because shard 0 goes to the first one; a CPU named twice is an error. Whether a CPU is there is not asked here.

/// CPU numbers stay below this: what a `cpu_set_t` of the C library holds (CPU_SETSIZE).
pub const CPUS_MAX: usize = 1_024;

/// The CPUs of a list, in its order; the empty text is the empty list.
pub fn parse(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    if text.trim().is_empty() {
        return Ok(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, text)?, number(last, text)?);
        if first > last {
            return Err(format!("{first}-{last} runs backwards; write {last}-{first}"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("names CPU {cpu} twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// The list as text; neighbours that rise are joined to a range.
pub fn print(cpus: &[usize]) -> String {
    let rises = |pair: &[usize]| pair[0].checked_add(1) == Some(pair[1]);
    let runs = cpus.chunk_by(|a, b| rises(&[*a, *b]));
    let parts: Vec<String> =
        runs.map(|run| if run.len() == 1 { run[0].to_string() } else { format!("{}-{}", run[0], run[run.len() - 1]) }).collect();
    parts.join(",")
}

fn number(part: &str, text: &str) -> Result<usize, String> {
    let cpu: usize = part.trim().parse().map_err(|_| format!("must be a list of CPU numbers like 0-3,6, not {text:?}"))?;
    if cpu < CPUS_MAX { Ok(cpu) } else { Err(format!("CPU {cpu} is above {}, the last one that can be pinned to", CPUS_MAX - 1)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order_and_survives_printing() {
        for (text, cpus) in
            [("", vec![]), ("3", vec![3]), ("0-3,6", vec![0, 1, 2, 3, 6]), ("6,0-1", vec![6, 0, 1]), (" 1 , 3 ", vec![1, 3])]
        {
            assert_eq!(parse(text), Ok(cpus.clone()), "{text:?}");
            assert_eq!(parse(&print(&cpus)), Ok(cpus), "{text:?}");
        }
        assert_eq!(print(&[3, 2, 1, 2, 3]), "3,2,1-3");
        assert_eq!(print(&[0, 1, 2, 3, 6]), "0-3,6");
    }

    #[test]
    fn a_bad_list_is_refused_with_the_reason() {
        for (text, word) in [
            ("a", "like 0-3,6"),
            ("1,", "like 0-3,6"),
            ("3-1", "backwards"),
            ("1,0-2", "twice"),
            ("0-4000000000", "above"),
            ("-1", "like"),
            ("1-2-3", "like"),
        ] {
            assert!(parse(text).unwrap_err().contains(word), "{text:?}: {:?}", parse(text));
        }
    }
}
