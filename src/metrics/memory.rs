//! How much memory the process may use.
//!
//! Containers and services are limited by control groups (version 2); without one, the host's memory is the limit.

use std::fs;
use std::path::Path;

const GROUPS: &str = "/sys/fs/cgroup";

/// Returns the least of all limits in bytes; `None` where the kernel tells none.
pub(super) fn limit() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let host = read(Path::new("/proc/meminfo")).and_then(|text| host_memory(&text));
    let group = read(Path::new("/proc/self/cgroup")).and_then(|text| group_limit(&text, read));
    host.into_iter().chain(group).min()
}

fn host_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// A group is also limited by those that it lies in.
fn group_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(GROUPS).join(own);
    let folders = path.ancestors().take_while(|folder| folder.starts_with(GROUPS));
    folders.filter_map(|folder| read(&folder.join("memory.max"))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_memory_is_in_kibibytes() {
        assert_eq!(host_memory("MemFree: 1 kB\nMemTotal:       24597340 kB\n"), Some(24_597_340 << 10));
        assert_eq!(host_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it_counts() {
        let limit = |outer: &str, inner: &str| {
            group_limit("1:cpu:/x\n0::/outer/inner\n", |path| match path.to_str()? {
                "/sys/fs/cgroup/outer/memory.max" => Some(outer.to_owned()),
                "/sys/fs/cgroup/outer/inner/memory.max" => Some(inner.to_owned()),
                _ => None,
            })
        };
        assert_eq!(limit("max\n", "max\n"), None);
        assert_eq!(limit("268435456\n", "max\n"), Some(256 << 20));
        assert_eq!(limit("268435456\n", "1073741824\n"), Some(256 << 20));
        assert_eq!(limit("268435456\n", "1048576\n"), Some(1 << 20));
    }

    #[test]
    fn there_is_a_limit_here() {
        assert!(limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
