//! How much memory the process may use.
//!
//! Containers and services are limited by control groups (version 2, or 1); without one, the host's
//! memory is the limit.

use std::fs;
use std::path::{Path, PathBuf};

const GROUPS: &str = "/sys/fs/cgroup";

/// Returns the least of all limits in bytes; `None` where the kernel tells none.
pub(super) fn limit() -> Option<u64> {
    let host = read(Path::new("/proc/meminfo")).and_then(|text| host_memory(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let group = group_limit(&groups, read);
    let group_v1 = group_v1(&groups)
        .and_then(|(path, root)| least(&path, &root, "memory.limit_in_bytes", read));
    host.into_iter().chain(group).chain(group_v1).min()
}

/// Returns what the kernel holds for this process' sockets, in bytes, if its control group counts
/// that; 0 if not.
pub(crate) fn sockets() -> usize {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let bytes = sockets_of(&groups, read).unwrap_or(0);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn sockets_of(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let statistics = group(groups).and_then(|path| read(&path.join("memory.stat")));
    let line =
        |text: String| text.lines().find_map(|line| line.strip_prefix("sock ")?.parse().ok());
    statistics.and_then(line).or_else(|| {
        let (path, _) = group_v1(groups)?;
        read(&path.join("memory.kmem.tcp.usage_in_bytes"))?.trim().parse().ok()
    })
}

fn host_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn group(groups: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(GROUPS).join(own))
}

/// Returns the group of version 1 that limits memory, and the outermost; where version 2 does,
/// there is none.
fn group_v1(groups: &str) -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(GROUPS).join("memory");
    let own = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        controllers.split(',').any(|one| one == "memory").then_some(path)
    })?;
    Some((root.join(own), root))
}

/// A group is also limited by those that it lies in.
fn group_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    least(&group(groups)?, Path::new(GROUPS), "memory.max", read)
}

fn least(
    group: &Path,
    root: &Path,
    file: &str,
    read: impl Fn(&Path) -> Option<String>,
) -> Option<u64> {
    let folders = group.ancestors().take_while(|folder| folder.starts_with(root));
    folders.filter_map(|folder| read(&folder.join(file))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_memory_is_in_kibibytes() {
        assert_eq!(
            host_memory("MemFree: 1 kB\nMemTotal:       24597340 kB\n"),
            Some(24_597_340 << 10)
        );
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
    fn groups_of_version_1_are_found_by_their_controller() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/outer/inner\n0::/\n";
        let (own, root) = group_v1(groups).expect("a group");
        assert_eq!(own, Path::new("/sys/fs/cgroup/memory/outer/inner"));
        let limit = least(&own, &root, "limit", |path| match path.to_str()? {
            "/sys/fs/cgroup/memory/limit" => Some("9223372036854771712\n".to_owned()),
            "/sys/fs/cgroup/memory/outer/limit" => Some("268435456\n".to_owned()),
            _ => None,
        });
        assert_eq!(limit, Some(256 << 20));
        assert_eq!(group_v1("0::/own\n"), None);
    }

    #[test]
    fn memory_of_sockets_is_what_the_group_counts() {
        let file = |name: &'static str, text: &'static str| {
            move |path: &Path| path.ends_with(name).then(|| text.to_owned())
        };
        let (v1, v2) = ("4:memory:/own\n0::/\n", "0::/own\n");
        assert_eq!(
            sockets_of(v2, file("own/memory.stat", "anon 7\nsock 4096\nsocket 9\n")),
            Some(4_096)
        );
        assert_eq!(
            sockets_of(v1, file("memory/own/memory.kmem.tcp.usage_in_bytes", "8192\n")),
            Some(8_192)
        );
        assert_eq!(sockets_of(v1, file("nothing", "")), None);
    }

    #[test]
    fn there_is_a_limit_here() {
        assert!(limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
