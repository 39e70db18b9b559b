"""What git says when it fails, as errors that name the cause and the mend."""

from __future__ import annotations

import re
from dataclasses import dataclass

from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.sources.disk import disk_full
from launch_prefect.sources.git.credentials import GitCredentials
from launch_prefect.sources.git.urls import server_of

_URL_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")
_SAYS_NOTHING = re.compile(r"^(?:and the repository exists\.|Please make sure you have .*|remote:\s*|hint:.*|\s*)$")
# What a fetch says of its progress and of what it has fetched
_PROGRESS = re.compile(
    r"(?:remote: )?(?:Enumerating|Counting|Compressing|Receiving|Resolving|Unpacking|Checking|Updating|Finding|Writing)"
    r" [a-z -]+: .*|remote: Total \d.*|From \S+|[-*+=t] .* -> .*|POST git-upload-pack.*"
)
_LINES = 4


def _pattern(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


_FULL = _pattern("no space left on device", "disk quota exceeded")
_DAMAGED = _pattern(
    "not a git repository", "bad object", "is corrupt", "does not match index", "unknown object type",
    "cannot read existing object", "unable to read tree", "invalid object", "missing blob", "missing tree",
    "reference broken", "bad config",
)  # fmt: skip
_REFUSED = _pattern("fsck error")
_UNKNOWN_COMMIT = _pattern("not our ref", "couldn't find remote ref", "no such remote ref")
_REFUSES_COMMITS = _pattern("unadvertised object", "does not support shallow", "dumb http transport")
_KEY = _pattern('load key "[^"]*"')
_HOST_KEY = _pattern("host key verification failed", "remote host identification has changed")
_CERTIFICATE = _pattern(
    "certificate verif", "certificate problem", "CAfile", "self.signed certificate", "unable to get local issuer",
    "x509:", "unknown authority", "SSL: no alternative certificate",
)  # fmt: skip
_NO_ACCESS = _pattern(
    "permission denied", "authentication failed", "authentication required", "authorization (?:failed|error)",
    "could not read (?:username|password)", "error: 40[13]", "access denied", "invalid credentials",
    "terminal prompts disabled", "not authorized", "http 40[13]",
)  # fmt: skip
_NO_LARGE_FILE = _pattern("object does not exist on the server")
_NOT_THERE = _pattern(
    "repository (?:'[^']*' )?not found", "error: 404", "does not appear to be a git repository", "could not be found",
    "no such repository", "repository .* does not exist",
)  # fmt: skip
_UNREACHABLE = _pattern(
    "could not resolve", "couldn't resolve", "name or service not known", "failed to connect", "couldn't connect",
    "connection (?:refused|reset|timed out|closed)", "timed out", "operation too slow", "too slow", "early eof",
    "unexpected disconnect", "hung up", "rpc failed", "error: (?:429|5[0-9][0-9])", "ssl_read", "tls connection",
    "gnutls", "empty reply", "transfer closed", "broken pipe", "kex_exchange", "ssh: connect to host",
    "connection to .* closed", "network is unreachable", "no route to host", "unexpected eof", "invalid index-pack",
    "could not read from remote repository", "http 5[0-9][0-9]", "recv failure", "send failure",
    "proxy", "unexpected flush", "expected flush", "the remote end", "fetch-pack: ",
)  # fmt: skip


class Damaged(LaunchError):
    """A mirror does not hold what it should."""


class RefusesCommits(LaunchError):
    """A server does not give a commit by its name, or not without its history."""


@dataclass(frozen=True, slots=True)
class About:
    """What git was working for.

    Attributes:
        url: Address of the repository.
        credentials: What it was given.
        block: The block they are from.
        folder: Where it writes.
    """

    url: str
    credentials: GitCredentials | None
    block: str | None
    folder: str

    def error(self, said: str, doing: str, *, mirrored: bool = False) -> LaunchError:
        """The error for what git said.

        Args:
            said: Its standard error.
            doing: What failed, as a sentence without its end, such as `The commit 1f… cannot be fetched`.
            mirrored: Whether it was done in a mirror, which may be damaged in more ways than are known here.

        Returns:
            The error, without a secret in it. `Unreachable` where trying again may help.
        """
        words = self.words(said)
        if not words:
            return self._unreachable(f"{doing}: git was ended before it said anything.")
        message = f"{doing}: {words}"
        said = "\n".join(_lines(said))
        for pattern, make in _TABLE:
            if pattern.search(said):
                return make(self, message)
        return Damaged(message, mend=f"Remove what is in {self.folder}.") if mirrored else LaunchError(message)

    def words(self, said: str) -> str:
        """The last lines of what git said that say anything, as one, without secrets and control characters."""
        secrets = self.credentials.secrets if self.credentials else frozenset()
        for secret in secrets:
            said = said.replace(secret, "***")
        said = _URL_CREDENTIALS.sub("//***@", said)
        return "; ".join([line for line in _lines(said) if not _SAYS_NOTHING.match(line)][-_LINES:])[-600:]

    def silent(self, doing: str) -> LaunchError:
        """The error for a git that was ended because it said nothing; see `error`."""
        return self._unreachable(f"{doing}: {server_of(self.url)[1]} does not answer.")

    def no_access(self, message: str) -> LaunchError:
        """The server lets nobody in, or not with these credentials."""
        return InvalidInput(message, mend=self._access_mend())

    def not_there(self, message: str) -> LaunchError:
        """There is no such repository, or it is hidden from those who may not read it."""
        return NotFound(message, mend=f"Check the address. {self._access_mend()}")

    def _access_mend(self) -> str:
        ssh = server_of(self.url)[0] == "ssh"
        if self.credentials:
            kind = "ssh key" if ssh else "token"
            named = f"block {self.block}" if self.block else "block"
            return f"The {kind} of the {named} was used; check that it is valid and may read this repository."
        if ssh:
            return (
                "No credentials were used but this machine's own. Name a secret block that holds a private ssh key, "
                "such as credentials: secret/my-ssh-key."
            )
        return (
            "No credentials were used. If the repository is private, name a block with a token, such as "
            "credentials: secret/my-git-token, or one of prefect-github, prefect-gitlab or prefect-bitbucket."
        )

    def _key(self, message: str) -> LaunchError:
        mend = "Put a whole private key without a passphrase into the block."
        return InvalidInput(message, mend=mend)

    def _host_key(self, message: str) -> LaunchError:
        mend = (
            "If the server's key was changed by its operator, remove its old one from "
            f"{self.folder}/known_hosts, or from this machine's own where no key is named in credentials."
        )
        return LaunchError(message, mend=mend)

    def _certificate(self, message: str) -> LaunchError:
        return LaunchError(message, mend="Set LAUNCH_CA_BUNDLE to a file with the CA certificates of the git server.")

    def _refused(self, message: str) -> LaunchError:
        return InvalidInput(message, mend="The repository is damaged, or holds what git takes for an attack; mend it.")

    def _gone(self, message: str) -> LaunchError:
        mend = "It was never pushed, or a force-push has taken it away. Push it, or submit the job again."
        return NotFound(message, mend=mend)

    def _no_large_file(self, message: str) -> LaunchError:
        return NotFound(message, mend="Push the large files (LFS): git lfs push --all origin.")

    def _unreachable(self, message: str) -> LaunchError:
        return Unreachable(message, mend="Check the address, the network and the proxy of this machine.")


def _lines(said: str) -> list[str]:
    """What git said, line by line, without control characters and without its progress."""
    lines = (" ".join(_CONTROL.sub(" ", line).split()) for line in re.split(r"[\r\n]+", said))
    return [line for line in lines if not _PROGRESS.fullmatch(line)]


_TABLE = (
    (_FULL, lambda about, message: disk_full(about.folder)),
    (_REFUSED, About._refused),
    (_UNKNOWN_COMMIT, About._gone),
    (_REFUSES_COMMITS, lambda about, message: RefusesCommits(message)),
    (_HOST_KEY, About._host_key),
    (_CERTIFICATE, About._certificate),
    (_KEY, About._key),
    (_NO_LARGE_FILE, About._no_large_file),
    (_NOT_THERE, About.not_there),
    (_NO_ACCESS, About.no_access),
    (_DAMAGED, lambda about, message: Damaged(message, mend=f"Remove what is in {about.folder}.")),
    (_UNREACHABLE, About._unreachable),
)
