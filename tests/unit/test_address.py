"""Naming a Redis: URLs, callers' clients, and what redis-py's errors mean."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import MasterNotFoundError, SentinelManagedSSLConnection
from redis.credentials import UsernamePasswordCredentialProvider

from redis_worker.broker.connection.address import address_of, mask
from redis_worker.broker.connection.error_translation import UnknownScript, translated
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused

SECRET = "hush"


def opened(redis: Any) -> dict[str, Any]:
    """The connection arguments of a client opened from an address, and the class of its connections."""
    client = address_of(redis).open()
    if isinstance(client, RedisCluster):
        return client.connection_kwargs
    return client.connection_pool.connection_kwargs | {"class": client.connection_pool.connection_class}


# Masks


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://:hush@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("redis://ann:hush@localhost", "redis://ann:***@localhost"),
        ("redis://hush@localhost", "redis://***@localhost"),
        ("redis://ann:h@ush@localhost/1", "redis://ann:***@localhost/1"),
        ("redis://ann:h@u/s#h?@localhost/1", "redis://***"),
        ("redis://localhost?password=hush&db=1", "redis://localhost?password=***&db=1"),
        ("redis://localhost?p%61ssword=hush", "redis://localhost?***=***"),
        ("redis+sentinel://a,b:1/m/0?sentinel_password=hush", "redis+sentinel://a,b:1/m/0?sentinel_password=***"),
        ("rediss+cluster://:hush@a:1,b:2", "rediss+cluster://:***@a:1,b:2"),
        ("unix://ann:hush@/run/redis.sock?db=1", "unix://ann:***@/run/redis.sock?db=1"),
        ("valkeys://ann:hush@a:1/2", "rediss://ann:***@a:1/2"),
        ("ann:hush@localhost", "***"),
        ("redis://ann:hush", "redis://***"),
    ],
)
def test_the_password_is_masked(url: str, shown: str) -> None:
    assert mask(url) == shown


@given(st.text(min_size=1))
@example("p@ss/word?#")
@example("x://y")
def test_no_password_shines_through_the_mask(password: str) -> None:
    secret = f"<{password}>"
    assert secret not in mask(f"redis://ann:{secret}@localhost:6379/0")


# URLs


def test_a_url_is_read_as_redis_py_reads_it() -> None:
    options = opened("redis://ann:p%40ss@example.org:7000/3?protocol=2&client_name=me&health_check_interval=9")
    assert {key: options[key] for key in ("host", "port", "db", "username", "password", "protocol", "client_name")} == {
        "host": "example.org", "port": 7000, "db": 3, "username": "ann", "password": "p@ss", "protocol": 2,
        "client_name": "me",
    }  # fmt: skip
    assert opened("redis://example.org?db=4")["db"] == 4
    assert opened("redis://[::1]:7000")["host"] == "::1"
    assert "host" not in opened("redis://")


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password", "tls"),
    [
        # Upstash, Aiven, DigitalOcean
        ("rediss://default:p%2Fw@eu1-x.upstash.io:6379", "eu1-x.upstash.io", 6379, "default", "p/w", True),
        ("valkeys://default:pw@v-x.aivencloud.com:11483", "v-x.aivencloud.com", 11483, "default", "pw", True),
        ("rediss://default:pw@db-x.ondigitalocean.com:25061", "db-x.ondigitalocean.com", 25061, "default", "pw", True),
        # Heroku, whose certificates are self-signed
        ("rediss://:pw@ec2-1.compute.amazonaws.com:7710?ssl_cert_reqs=none", "ec2-1.compute.amazonaws.com", 7710, "",
         "pw", True),
        # Azure: keys end with =
        ("rediss://:a%2Bb=@x.redis.cache.windows.net:6380/0", "x.redis.cache.windows.net", 6380, "", "a+b=", True),
        # Render, Railway, Redis Cloud
        ("redis://red-x:6379", "red-x", 6379, "", "", False),
        ("redis://default:pw@redis.railway.internal:6379", "redis.railway.internal", 6379, "default", "pw", False),
        ("redis://default:pw@redis-1.c1.eu.ec2.cloud.redislabs.com:12345/0", "redis-1.c1.eu.ec2.cloud.redislabs.com",
         12345, "default", "pw", False),
    ],
)  # fmt: skip
def test_urls_as_providers_write_them(url: str, host: str, port: int, user: str, password: str, tls: bool) -> None:
    options = opened(url)
    assert (options["host"], options["port"], options.get("db", 0)) == (host, port, 0)
    assert (options.get("username") or "", options.get("password") or "") == (user, password)
    assert issubclass(options["class"], SSLConnection) == tls


def test_connections_opened_wait_as_long_as_they_must_and_repeat_nothing() -> None:
    url = "redis://localhost?socket_timeout=1&retry_on_timeout=yes&decode_responses=True&max_connections=1"
    client = Redis.from_url("redis://localhost", socket_timeout=1, decode_responses=True, max_connections=1)
    limited = Redis.from_pool(BlockingConnectionPool(timeout=1, max_connections=1, socket_connect_timeout=None))
    cluster = RedisCluster("localhost", socket_timeout=1, socket_connect_timeout=None, max_connections=1)
    for redis in (url, client, limited, cluster):
        options = opened(redis)
        assert options["socket_timeout"] is None
        assert options["socket_connect_timeout"] == 5
        assert options["decode_responses"] is False
        opened_client = address_of(redis).open()
        if isinstance(opened_client, Redis):
            connection = opened_client.connection_pool.make_connection()
            assert connection.retry.get_retries() == 0
            assert not connection.retry_on_error
            assert opened_client.connection_pool.max_connections == 100
        else:
            assert opened_client.retry.get_retries() == 0
            assert opened_client.nodes_manager.connection_kwargs["max_connections"] == 100


def test_unix_sockets() -> None:
    options = opened("unix://ann:hush@/run/my%20redis.sock?db=2")
    assert (options["path"], options["db"], options["username"]) == ("/run/my redis.sock", 2, "ann")
    assert options["class"] is UnixDomainSocketConnection
    copied = opened(Redis(unix_socket_path="/run/redis.sock", db=1))
    assert (copied["path"], copied["db"], copied["class"]) == ("/run/redis.sock", 1, UnixDomainSocketConnection)


def test_tls_options_survive(certificate: Path) -> None:
    url = f"localhost:6380?ssl_ca_certs={certificate}&ssl_check_hostname=no"
    for options in (opened(f"rediss://{url}"), opened(f"rediss+cluster://{url}")):
        assert options["ssl_ca_certs"] == str(certificate)
        assert options["ssl_check_hostname"] is False
        assert options.get("class", options.get("connection_class")) is SSLConnection
    client = Redis(ssl=True, ssl_ca_certs=str(certificate), ssl_min_version=ssl.TLSVersion.TLSv1_3)
    copied = opened(client)
    assert (copied["ssl_ca_certs"], copied["ssl_min_version"]) == (str(certificate), ssl.TLSVersion.TLSv1_3)
    cluster = opened(RedisCluster("localhost", ssl=True, ssl_ca_certs=str(certificate)))
    assert (cluster["ssl_ca_certs"], cluster["connection_class"]) == (str(certificate), SSLConnection)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Some certificate authority's certificate: the first the system has."""
    context = ssl.create_default_context()
    authorities = context.get_ca_certs(binary_form=True)
    if not authorities:
        pytest.skip("this machine has no certificate authorities")
    path = tmp_path / "ca.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(authorities[0]))
    return path


def test_sentinel_urls(certificate: Path) -> None:
    address = address_of("redis+sentinel://ann:p%40ss@one,two:27000/mymaster/2?sentinel_password=hush&protocol=2")
    assert address.name == "redis+sentinel://ann:***@one,two:27000/mymaster/2?sentinel_password=***&protocol=2"
    client = address.open()
    assert isinstance(client, Redis)
    pool: Any = client.connection_pool
    sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(options["host"], options["port"]) for options in sentinels] == [("one", 26379), ("two", 27000)]
    assert {options["password"] for options in sentinels} == {SECRET}
    options = pool.connection_kwargs
    assert (pool.service_name, options["db"], options["password"], options["protocol"]) == ("mymaster", 2, "p@ss", 2)

    secured = address_of(f"rediss+sentinel://one/mymaster?ssl_ca_certs={certificate}").open()
    assert isinstance(secured, Redis)
    pool = secured.connection_pool
    assert pool.connection_class is SentinelManagedSSLConnection
    assert pool.connection_kwargs["ssl_ca_certs"] == str(certificate)
    [sentinel] = pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_class is SSLConnection
    assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == str(certificate)


def test_cluster_urls() -> None:
    address = address_of("redis+cluster://:hush@127.0.0.1:7000,127.0.0.2/0?protocol=2")
    assert address.cluster
    assert SECRET not in address.name
    client = address.open()
    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.startup_nodes] == [("127.0.0.1", 7000), ("127.0.0.2", 6379)]
    assert (client.connection_kwargs["password"], client.connection_kwargs["protocol"]) == (SECRET, 2)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("localhost:6379", "must begin with one of redis://, rediss://, unix://"),
        ("http://localhost", "must begin with one of"),
        (":hush@localhost:6379", "must begin with one of"),
        ("redis://:hu/sh@localhost", "must be percent-encoded"),
        ("redis://:12/hush@localhost", "must be percent-encoded"),
        ("redis://:hush#x@localhost", "must be percent-encoded"),
        ("redis://:12#hush@localhost", "must be percent-encoded"),
        ("redis://:12?hush@localhost", "must be percent-encoded"),
        ("redis://:[hush@localhost", "must be percent-encoded"),
        ("redis://ann:hush", "must be percent-encoded"),
        ("redis://localhost:70000", "a host or port is not valid"),
        ("redis://one,two", "several hosts require redis.sentinel:// or redis.cluster://"),
        ("redis://localhost/zero", "the database must be a number"),
        ("redis://localhost?db=zero", "Invalid value for 'db'"),
        ("redis://localhost?colour=red", "unknown option 'colour'"),
        ("redis://localhost?timeout=5", "unknown option 'timeout'"),
        ("redis://localhost?protocol=7", "protocol must be either 2 or 3"),
        ("redis://localhost?sentinel_password=hush", "unknown option 'sentinels'"),
        ("rediss://localhost?ssl_ca_certs=/no/such/file", "cannot read its certificates or key: .*No such file"),
        ("rediss://localhost?ssl_cert_reqs=maybe", "an option has an invalid value"),
        ("unix://run/redis.sock", "full path of the socket, as in unix:///run"),
        ("unix://", "full path of the socket"),
        ("redis+sentinel://localhost", "name the sentinel service"),
        ("redis+sentinel://localhost/mymaster/zero", "the database must be a number"),
        ("redis+sentinel://one,/mymaster", "a host is missing"),
        ("redis+sentinel://one/mymaster?sentinel_colour=red", "unknown option 'colour'"),
        ("redis+cluster://localhost/1", "only database 0"),
        ("redis+cluster://localhost?db=1", "only database 0"),
        ("redis+cluster://localhost?colour=red", "unknown option 'colour'"),
        ("redis+cluster://localhost:hush", "a host or port is not valid"),
    ],
)
def test_what_cannot_be_a_url_is_said_at_once(url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as raised:
        address_of(url)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


# Callers' clients


def test_a_client_is_copied_with_all_that_says_where_and_who() -> None:
    provider = UsernamePasswordCredentialProvider("ann", SECRET)
    client = Redis(host="example.org", port=7000, db=3, credential_provider=provider, client_name="me", protocol=2)
    options = opened(client)
    assert {key: options[key] for key in ("host", "port", "db", "client_name", "protocol")} == {
        "host": "example.org", "port": 7000, "db": 3, "client_name": "me", "protocol": 2,
    }  # fmt: skip
    assert options["credential_provider"] is provider
    assert address_of(client).name == "example.org:7000/3"


def test_a_client_that_keeps_to_one_connection_is_copied_as_one_that_does_not() -> None:
    client = address_of(Redis(single_connection_client=True)).open()
    assert isinstance(client, Redis)
    assert not client.single_connection_client


def test_a_pool_of_the_callers_own_class() -> None:
    class OwnConnection(SSLConnection):
        pass

    options = opened(Redis.from_pool(ConnectionPool(connection_class=OwnConnection, host="example.org")))
    assert (options["class"], options["host"]) == (OwnConnection, "example.org")


def test_a_sentinel_made_client_is_copied() -> None:
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [("one", 1), ("two", 2)], 1, {"password": SECRET}, force_master_ip="10.0.0.1", password="p@ss", db=2
    )
    address = address_of(sentinel.master_for("mymaster", check_connection=True))
    assert address.name == "sentinel service mymaster"
    client = address.open()
    assert isinstance(client, Redis)
    pool: Any = client.connection_pool
    assert (pool.service_name, pool.is_master, pool.check_connection) == ("mymaster", True, True)
    assert (pool.connection_kwargs["password"], pool.connection_kwargs["db"]) == ("p@ss", 2)
    manager = pool.sentinel_manager
    assert (manager.min_other_sentinels, manager._force_master_ip) == (1, "10.0.0.1")
    sentinels = [known.connection_pool.connection_kwargs for known in manager.sentinels]
    assert [(known["host"], known["port"], known["password"]) for known in sentinels] == [
        ("one", 1, SECRET),
        ("two", 2, SECRET),
    ]


def test_a_client_of_a_replica_is_refused() -> None:
    sentinel = Sentinel([("one", 1)])  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigurationError, match=r"uses its replicas.*master_for\('mymaster'\)"):
        address_of(sentinel.slave_for("mymaster"))


@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated usage")
def test_a_cluster_client_is_copied() -> None:
    def remap(address: tuple[str, int]) -> tuple[str, int]:
        return address

    client = RedisCluster(
        "127.0.0.1", 7000, password=SECRET, read_from_replicas=True, require_full_coverage=False, address_remap=remap
    )
    address = address_of(client)
    assert address.cluster
    assert address.name == "cluster 127.0.0.1:7000"
    copied = address.open()
    assert isinstance(copied, RedisCluster)
    assert copied.connection_kwargs["password"] == SECRET
    assert "redis_connect_func" not in copied.connection_kwargs  # it would make connections read-only
    assert not copied.read_from_replicas
    assert copied.nodes_manager.address_remap is remap
    assert copied.nodes_manager.require_full_coverage is False
    assert copied.nodes_manager is not client.nodes_manager


@pytest.mark.parametrize("thing", [object(), None, 6379, b"redis://localhost"])
def test_anything_else_is_no_redis(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"redis must be a URL or a redis\.asyncio client, got builtins\."):
        address_of(thing)


def test_a_client_without_asyncio_is_no_redis() -> None:
    import redis

    with redis.Redis() as client, pytest.raises(ConfigurationError, match=r"got redis\.client\.Redis"):
        address_of(client)  # type: ignore[arg-type]


# What redis-py's errors mean


def reply(text: str) -> Exception:
    """What redis-py makes of an error reply."""
    from redis._parsers import BaseParser

    return BaseParser.parse_error(text)


def wrapped(outer: Exception, inner: BaseException, *, silently: bool = False) -> Exception:
    """`outer` raised because of `inner`, or only in its presence."""
    try:
        try:
            raise inner
        except BaseException:
            if silently:
                raise outer  # noqa: B904 - as redis-py does
            raise outer from inner
    except Exception as error:
        return error


def certificate_error() -> ssl.SSLCertVerificationError:
    return ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)")


IN_SCRIPT = "ERR Error running script (call to f_1b2c): @user_script:12: @user_script: 12: "


@pytest.mark.parametrize(
    "error",
    [
        reply("LOADING Redis is loading the dataset in memory"),
        reply("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
        reply("READONLY You can't write against a read only replica."),
        reply("CLUSTERDOWN The cluster is down"),
        reply("CLUSTERDOWN Hash slot not served"),
        reply("TRYAGAIN Multiple keys request during rehashing of slot"),
        reply("OOM command not allowed when used memory > 'maxmemory'."),
        reply("MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk."),
        reply("NOREPLICAS Not enough good replicas to write."),
        reply("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"),
        reply("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."),
        reply("ERR max number of clients reached"),
        reply("ERR max number of clients + cluster connections reached"),
        reply(IN_SCRIPT + "-OOM command not allowed when used memory > 'maxmemory'."),
        reply(IN_SCRIPT + "-READONLY You can't write against a read only replica."),
        reply("ERR problem with LDAP service"),
        redis_errors.MaxConnectionsError("Too many connections"),
        redis_errors.ConnectionError("Error -2 connecting to nowhere:6379. Name or service not known."),
        redis_errors.TimeoutError("Timeout reading from localhost:6379"),
        redis_errors.InvalidResponse("Protocol Error: b'H'"),
        redis_errors.ClusterError("TTL exhausted."),
        redis_errors.SlotNotCoveredError('Slot "7" is not covered by the cluster.'),
        redis_errors.RedisClusterException("All slots are not covered after query all startup_nodes. 1 of 16384"),
        wrapped(redis_errors.RedisClusterException("cannot be connected"), redis_errors.ConnectionError("refused")),
        wrapped(redis_errors.TimeoutError("Timed out closing"), reply("MOVED 7 127.0.0.1:7001"), silently=True),
        wrapped(redis_errors.ConnectionError("Error"), ssl.SSLEOFError(8, "EOF occurred"), silently=True),
        MasterNotFoundError("No master found for 'mymaster'"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(),
        EOFError(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_what_trying_again_may_mend(error: Exception) -> None:
    found = translated(error)
    assert isinstance(found, Disconnected)
    assert str(found)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (reply("WRONGPASS invalid username-password pair or user is disabled."), "refuses the login: invalid username"),
        (reply("NOAUTH Authentication required."), "refuses the login: Authentication required; check the user name"),
        (reply("ERR invalid password"), "refuses the login"),
        (reply("ERR invalid password hash"), "refuses the login"),
        (reply("ERR wrong number of arguments for 'auth' command"), "refuses the login"),
        (reply("NOPERM User ann has no permissions to run the 'evalsha' command"), "grant the user permission to"),
        (reply("NOPERM this user has no permissions to access one of the keys"), "grant the user permission to"),
        (reply("WRONGTYPE Operation against a key holding the wrong kind of value"), "holds another type than it"),
        (reply(IN_SCRIPT + "WRONGTYPE Operation against a key"), "holds another type than it should: Operation"),
        (reply("MOVED 7 127.0.0.1:7001"), r"cluster node \(7 127.0.0.1:7001\): use a redis\+cluster:// URL"),
        (reply("CROSSSLOT Keys in request don't hash to the same slot"), "use a redis.cluster:// URL"),
        (reply("ERR DB index is out of range"), "Redis refuses: DB index is out of range"),
        (reply("DENIED Redis is running in protected mode"), "Redis refuses: DENIED"),
        (
            reply("ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'ann' 'hush'"),
            "needs Redis 6.2 or later",
        ),
        (reply(IN_SCRIPT + "Unknown Redis command called from Lua script"), "Redis refuses: Error running script"),
        (
            wrapped(redis_errors.ConnectionError("Error"), certificate_error(), silently=True),
            "the TLS connection failed",
        ),
        (
            wrapped(
                redis_errors.ConnectionError("Error"), ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version")
            ),
            "check the certificates, and that the port accepts TLS",
        ),
        (
            wrapped(redis_errors.ConnectionError("x"), reply("WRONGPASS invalid username-password pair")),
            "refuses the login",
        ),
        (
            wrapped(
                redis_errors.RedisClusterException("Redis Cluster cannot be connected."),
                redis_errors.AuthenticationError("invalid username-password pair"),
            ),
            "refuses the login",
        ),
        (
            wrapped(
                redis_errors.RedisClusterException("Redis Cluster cannot be connected."),
                wrapped(
                    redis_errors.RedisClusterException("Cluster mode is not enabled on this node"),
                    reply("ERR This instance has cluster support disabled"),
                    silently=True,
                ),
            ),
            "not a cluster node: use a redis:// or rediss:// URL",
        ),
        (
            MasterNotFoundError("No master found for 'm' : <redis.asyncio.Redis()> - auth:AuthenticationError"),
            "the sentinels refuse the login; give sentinel_username and sentinel_password",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_trying_again_cannot_mend(error: Exception, sentence: str) -> None:
    found = translated(error)
    assert isinstance(found, Refused)
    with pytest.raises(Refused, match=sentence) as raised:
        raise found
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.DataError("Invalid input of type: 'dict'."),
        redis_errors.RedisClusterException("No way to dispatch this command to Redis Cluster. Missing key."),
        RuntimeError("Event loop is closed"),
        TypeError("a defect"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_defects_stay_what_they_are(error: Exception) -> None:
    assert translated(error) is error


def test_an_unknown_script_is_known_as_one() -> None:
    assert isinstance(translated(reply("NOSCRIPT No matching script. Please use EVAL.")), UnknownScript)
