"""Findings about the machine: directories, disk, memory, clock, GPU. Pure."""

from collections.abc import Iterator
from typing import Final

from trackd_proto.limits import GIB, MIB

from trackd_daemon.doctor import facts
from trackd_daemon.doctor.findings import Finding, Level, bytes_text
from trackd_daemon.wal.quota import Quota

NETWORK: Final = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "pvfs2",
    "orangefs", "panfs", "wekafs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs",
})  # fmt: skip
PASSING: Final = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})
FEW_INODES: Final = 1_000
LOW_INODES: Final = 10_000
FUTURE_S: Final = 60
_OWN: Final = "set TRACKD_HOME to a directory of your own"


def check_places(seen: facts.Places) -> Iterator[Finding]:
    """Owner, mode, links, rights of every directory and private file."""
    bad = False
    for place in seen.places:
        if found := _place(place, seen.user):
            bad = True
            yield found
    if seen.open_above:
        bad = True
        text = (
            f"{seen.open_above} can be written by everybody: other users could put their directory in the home's place"
        )
        yield Finding("directories", "warning", text, f"chmod +t {seen.open_above}, or {_OWN}")
    if not bad:
        there = [place for place in seen.places if place.kind != "missing"]
        home = next((place.path for place in seen.places if place.role == "home"), "the home")
        text = f"{home} is private and can be written" if there else f"{home} is not there yet; the first run makes it"
        yield Finding("directories", "ok", text)


def _place(place: facts.Place, user: int) -> Finding | None:
    def trouble(text: str, advice: str) -> Finding:
        return Finding("directories", "trouble", f"{place.path} {text}", advice)

    if place.error:
        return trouble(f"cannot be looked at: {place.error}", f"make it readable for you, or {_OWN}")
    if place.kind == "missing":
        return None if place.is_writable else trouble("is missing and cannot be made here", _OWN)
    wanted = "file" if place.role == "file" else "directory"
    if place.kind != wanted:
        what = "a symbolic link" if place.kind == "link" else "something else"
        return trouble(f"is {what}, not a {wanted}: trackd does not follow it", f"remove it, or {_OWN}")
    if place.role == "home":
        if place.owner not in (user, 0):
            return trouble(f"belongs to uid {place.owner}, not to you (uid {user})", _OWN)
        if place.mode & 0o002 and not place.mode & 0o1000:
            return trouble(f"can be written by everybody (mode {place.mode & 0o7777:o})", f"chmod o-w {place.path}")
    else:
        if place.owner != user:
            return trouble(f"belongs to uid {place.owner}, not to you (uid {user})", _OWN)
        if place.mode & 0o077:
            return trouble(f"is open to other users (mode {place.mode & 0o777:o})", f"chmod go= {place.path}")
    if not place.is_writable:
        advice = f"chmod u+rw{'x' if wanted == 'directory' else ''} {place.path}, or remount if it is mounted read-only"
        return trouble("cannot be written by you", advice)
    return None


def check_disk(disk: facts.Disk, budget: facts.Budget) -> Iterator[Finding]:
    """Kind of file system, space and inodes against what trackd may take."""
    if disk.kind in NETWORK:
        yield Finding(
            "file system",
            "warning",
            f"{disk.path} is on a network file system ({disk.kind}): locks and mapped files are less reliable there",
            "set TRACKD_HOME to a directory on a local disk",
        )
    elif disk.kind in PASSING:
        text = f"{disk.path} is on {disk.kind}: what is not sent yet is gone with the container, or with the next boot"
        yield Finding("file system", "note", text)
    else:
        yield Finding("file system", "ok", f"{disk.path} is on {disk.kind or 'a local disk'}")
    yield _space(disk, budget)
    yield _inodes(disk)


def _space(disk: facts.Disk, budget: facts.Budget) -> Finding:
    quota = Quota(budget.wal_quota, budget.min_free)
    limit = quota.limit(disk.total)
    if reason := quota.reason_full(budget.wal_bytes, disk.free, disk.total):
        advice = f"free space on {disk.path}, or set TRACKD_WAL_QUOTA_BYTES and TRACKD_MIN_FREE_BYTES"
        return Finding("disk space", "trouble", f"the daemon takes nothing more: {reason}", advice)
    least = budget.min_free or min(GIB, disk.total // 20)
    spool = budget.spool_quota or min(2 * GIB, max(16 * MIB, disk.free // 50))
    room, wanted = disk.free - least, limit - budget.wal_bytes + spool
    shown = f"{bytes_text(disk.free)} free"
    if budget.wal_bytes > limit * 9 // 10:
        text = f"the write-ahead log holds {bytes_text(budget.wal_bytes)} of at most {bytes_text(limit)}"
        return Finding("disk space", "warning", text, "see why it is not sent (`trackd status`), or raise the quota")
    if room >= wanted:
        return Finding("disk space", "ok", f"{shown}; log and spool may take {bytes_text(wanted)} more")
    text = f"{shown}, {bytes_text(room)} of it usable: less than the {bytes_text(wanted)} that the quotas allow"
    if room >= GIB:
        return Finding("disk space", "note", text)
    return Finding("disk space", "warning", text, f"free space on {disk.path}, or set TRACKD_HOME to a larger disk")


def _inodes(disk: facts.Disk) -> Finding:
    if not disk.inodes:
        return Finding("inodes", "ok", "this file system does not count them")
    text = f"{disk.inodes_free:,} files can still be made on the file system of {disk.path}"
    if disk.inodes_free >= LOW_INODES:
        return Finding("inodes", "ok", text)
    advice = "remove files there, or set TRACKD_HOME to another disk"
    return Finding("inodes", "trouble" if disk.inodes_free < FEW_INODES else "warning", f"only {text}", advice)


def check_memory(memory: facts.Memory) -> Iterator[Finding]:
    """The fork guard, and mapped files."""
    if memory.wipes_on_fork:
        yield Finding("fork guard", "ok", "the kernel marks forked processes (MADV_WIPEONFORK)")
    else:
        text = (
            "the kernel does not mark forked processes (MADV_WIPEONFORK): forks made behind Python's back go unnoticed"
        )
        advice = "use os.fork or multiprocessing, not fork() from C, or a Linux kernel of 4.14 or later"
        yield Finding("fork guard", "warning", text, advice)
    if memory.allocates:
        yield Finding("mapped files", "ok", f"files in {memory.path} can be allocated and mapped")
    elif memory.allocates is None:
        text = f"not tried: the file system of {memory.path} has no unnamed files ({memory.error})"
        yield Finding("mapped files", "note", text)
    else:
        text = f"a file in {memory.path} cannot be allocated and mapped: {memory.error}"
        yield Finding("mapped files", "trouble", text, "set TRACKD_HOME to a directory on a local disk with free space")


def check_clock(clock: facts.Clock) -> Iterator[Finding]:
    """Files from the future: the clock was set back."""
    ahead = [stamp for stamp in clock.stamps if stamp.time_us > clock.now_us + FUTURE_S * 1_000_000]
    if ahead:
        worst = max(ahead, key=lambda stamp: stamp.time_us)
        by = (worst.time_us - clock.now_us) // 1_000_000
        text = f"{worst.path} was written {by:,} s in the future: this machine's clock was set back, or is slow"
        advice = "set the clock (`timedatectl`, NTP); charts over time have a fold there, no row is lost"
        yield Finding("clock", "warning", text, advice)
    else:
        count = len(clock.stamps)
        more = ", there are more" if clock.is_cut_off else ""
        yield Finding("clock", "ok", f"nothing here comes from the future ({count} files looked at{more})")


def check_gpu(gpu: facts.Gpu) -> Iterator[Finding]:
    """NVIDIA's library. That there is none is no trouble."""
    if gpu.devices is not None:
        yield Finding("GPU", "ok", f"{gpu.devices} NVIDIA GPU{'' if gpu.devices == 1 else 's'}, driver {gpu.driver}")
    elif not gpu.has_library:
        text, advice = "the Python module pynvml cannot be imported", "pip install nvidia-ml-py"
        level: Level = "warning" if gpu.has_driver else "note"
        has = " though there is an NVIDIA driver" if gpu.has_driver else ""
        yield Finding("GPU", level, f"{text}{has}: GPUs are not measured ({gpu.error})", advice)
    elif gpu.has_driver:
        text = f"there is an NVIDIA driver, and it does not answer: {gpu.error}"
        yield Finding("GPU", "warning", text, "see whether `nvidia-smi` works; in a container, pass the GPU in")
    else:
        yield Finding("GPU", "ok", "no NVIDIA driver on this machine")
