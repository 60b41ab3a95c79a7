// SPDX-License-Identifier: GPL-2.0
/*
 * A second chance for a TCP flow that came to the wrong real server.
 *
 * Runs for every packet that comes in by the device with the node's own address (tc, clsact ingress), before the packet
 * leaves its tunnel (IPv4 in IPv4, IPv6 in IPv6). A packet of a flow that has no socket here, but may have one on
 * another real server, gets a new outer header and goes there; the inner packet is not touched. Everything else is left
 * to the kernel as if this program were not there.
 *
 * Where such a flow may live is what the L4 nodes' Maglev tables say now and said before: lbnode/chance/layout.py packs
 * them into one array of rows per group of services that share their tables, in order of likelihood. The hash is that
 * of net/netfilter/ipvs/ip_vs_mh.c, and so is the way a key whose server takes no new flows is hashed again.
 *
 * Helpers: include/uapi/linux/bpf.h. bpf_redirect_neigh needs Linux 5.10, the others less.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#define SECTION(name) __attribute__((section(name), used))
#define inline inline __attribute__((always_inline))
#define BE16(number) ((__be16)__builtin_bswap16(number))
#define BE32(number) ((__be32)__builtin_bswap32(number))

/* The layout of a table: see lbnode/chance/layout.py. */
#define SLOTS 4093
#define SERVERS 512
#define DOWNS 1024
#define ROWS (SLOTS + SERVERS + DOWNS)
#define STRUCTURES 16
#define CHOICES 16
#define LAST 0xFFFF
#define WITHOUT_PORT 0x10000 /* with the number of a group: its Maglev key is the client's address alone */
#define TRIES 64

#define HOP_TTL_FIRST 64
#define HOP_TTL_SECOND 32
#define FRAGMENT BE16(0x3FFF)

/* <linux/icmp.h> and <linux/icmpv6.h> need more than a compiler for the kernel has. */
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PARAMETER_PROBLEM 4

struct icmp {
	__u8 type, code;
	__be16 checksum;
	__be32 rest;
};

enum reason {
	SOCKET,        /* there is one: the flow is at home */
	COOKIE,        /* a valid SYN cookie: a connection is being opened here */
	NEW,           /* a SYN */
	FORWARDED,     /* from an L4 node, on to another real server */
	FORWARDED_AGAIN, /* from a real server, on to a third one */
	ALONE,         /* no other real server may have it */
	TWO_HOPS,      /* two have been tried before this one */
	STRANGER,      /* neither from an L4 node nor from a real server */
	ODD,           /* fragments, headers too short */
	REASONS,
};

enum role { L4 = 1, REAL_SERVER = 2 };

struct address { /* an IPv4 one is mapped: ::ffff:192.0.2.1 */
	__be32 word[4];
};

struct row {
	union {
		struct {
			__u16 owner[STRUCTURES]; /* of this slot, in each structure: an index of servers; 0: nobody */
			__u16 choice[CHOICES];   /* structure << 12 | index of downs (0: the owner itself); LAST: no more, and always there */
		};
		struct address server; /* zero: nobody there */
		__u8 down[64];         /* a bit for each server: takes no new flows */
	};
};

struct endpoint {
	struct address vip;
	__be16 port;
	__u16 zero;
};

struct definition {
	__u32 type, key, value, entries, flags;
};

struct definition table SECTION("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct row), ROWS, 0};
struct definition groups SECTION("maps") = {BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 256, 0};
struct definition endpoints SECTION("maps") = {BPF_MAP_TYPE_HASH, sizeof(struct endpoint), 4, 16384, 0};
struct definition peers SECTION("maps") = {BPF_MAP_TYPE_HASH, sizeof(struct address), 4, 4096, 0};
struct definition own SECTION("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct address), 2, 0};
struct definition counters SECTION("maps") = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, REASONS, 0};

char terms[] SECTION("license") = "GPL";
char made_from[] SECTION("source") = SOURCE; /* the SHA-256 of this file: a test looks whether the object is of it */

static void *(*lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*load_bytes)(const void *skb, __u32 at, void *to, __u32 size) = (void *)BPF_FUNC_skb_load_bytes;
static long (*store_bytes)(void *skb, __u32 at, const void *from, __u32 size, __u64 flags) =
	(void *)BPF_FUNC_skb_store_bytes;
static struct bpf_sock *(*find_socket)(void *skb, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags) =
	(void *)BPF_FUNC_skc_lookup_tcp;
static long (*release)(struct bpf_sock *socket) = (void *)BPF_FUNC_sk_release;
static long (*check_cookie)(void *socket, void *ip, __u32 ip_size, struct tcphdr *tcp, __u32 tcp_size) =
	(void *)BPF_FUNC_tcp_check_syncookie;
static long (*redirect_neigh)(__u32 device, void *hop, int size, __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

/* One packet: whose it is, and what is to be asked about it. */
struct packet {
	struct endpoint endpoint;
	struct address client;
	__be16 client_port;
	__u8 is_error;
	struct address me, sender;
	__u8 ttl;
	struct tcphdr tcp;
	union {
		struct iphdr four;
		struct ipv6hdr six;
	} outer, inner;
};

static inline int stay(__u32 reason)
{
	__u64 *counter = lookup(&counters, &reason);

	if (counter)
		(*counter)++;
	return TC_ACT_UNSPEC;
}

static inline void map_four(struct address *to, __be32 from)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = BE32(0xFFFF);
	to->word[3] = from;
}

static inline void copy(struct address *to, const void *from)
{
	__builtin_memcpy(to, from, sizeof(*to));
}

static inline int same(const struct address *one, const struct address *other)
{
	return !((one->word[0] ^ other->word[0]) | (one->word[1] ^ other->word[1]) | (one->word[2] ^ other->word[2]) |
		 (one->word[3] ^ other->word[3]));
}

#define ROTATE(value, bits) ((value) << (bits) | (value) >> (64 - (bits)))

/* hsiphash_1u32 of a 64-bit kernel: SipHash-1-3, its low 32 bits; the key is generate_hash_secret's first. */
static inline __u32 hash(__u32 value)
{
	const __u64 key = 2654435761ULL, block = 4ULL << 56 | value;
	__u64 a = key ^ 0x736F6D6570736575ULL, b = key ^ 0x646F72616E646F6DULL;
	__u64 c = key ^ 0x6C7967656E657261ULL, d = key ^ 0x7465646279746573ULL ^ block;

#pragma unroll
	for (int turn = 0; turn < 4; turn++) {
		a += b;
		b = ROTATE(b, 13) ^ a;
		a = ROTATE(a, 32);
		c += d;
		d = ROTATE(d, 16) ^ c;
		a += d;
		d = ROTATE(d, 21) ^ a;
		c += b;
		b = ROTATE(b, 17) ^ c;
		c = ROTATE(c, 32);
		if (turn == 0) {
			a ^= block;
			c ^= 0xFF;
		}
	}
	return (__u32)(a ^ b ^ c ^ d);
}

/* The first real server that may have the flow and is neither this one nor the sender; 0 when there is none. */
static inline int choose(void *rows, const struct packet *packet, int version, int with_port, struct address *to)
{
	const struct address *client = &packet->client;
	__be32 word = version == 4 ? client->word[3]
				   : client->word[0] ^ client->word[1] ^ client->word[2] ^ client->word[3];
	__u32 key = BE32(word) + (with_port ? BE16(packet->client_port) : 0);
	__u32 home = hash(key) % SLOTS, none = SLOTS, turn, step;
	struct row *first = lookup(rows, &home), *nobody = lookup(rows, &none);

	if (!first || !nobody)
		return 0;
	/* Both 0. That the verifier cannot know it keeps it from following every path through every turn of the loop. */
	turn = nobody->server.word[0] & (CHOICES - 1);
	step = nobody->server.word[1] & (TRIES - 1);
	for (int tries = 0; tries < TRIES; tries++) {
		__u32 choice, down, at = home;
		struct row *row = first, *found;

		choice = first->choice[turn];
		if (choice == LAST)
			return 0;
		if (step) { /* hashed again, with the step as a further summand */
			at = hash(key + (step - 1 + home) % SLOTS) % SLOTS;
			row = lookup(rows, &at);
			if (!row)
				return 0;
		}
		__u32 server = row->owner[choice >> 12] & (SERVERS - 1);

		down = choice & 0xFFF;
		if (down) {
			at = SLOTS + SERVERS + down;
			found = lookup(rows, &at);
			if (!found)
				return 0;
			if (found->down[server >> 3] >> (server & 7) & 1) {
				step = (step + 1) & (TRIES - 1);
				continue;
			}
		}
		turn = (turn + 1) & (CHOICES - 1);
		step = nobody->server.word[1] & (TRIES - 1);
		at = SLOTS + server;
		found = lookup(rows, &at);
		if (!found || !server)
			continue;
		copy(to, &found->server);
		if (!(to->word[0] | to->word[1] | to->word[2] | to->word[3]))
			continue;
		if (!same(to, &packet->me) && !same(to, &packet->sender))
			return 1;
	}
	return 0;
}

/* How often a packet has been sent on: forwarders say so by the outer TTL. Less than 0: by nobody we know. */
static inline int hops(const struct packet *packet)
{
	__u32 *role = lookup(&peers, &packet->sender);

	if (!role)
		return -1;
	if (*role == L4)
		return 0;
	return packet->ttl > HOP_TTL_SECOND ? 1 : 2;
}

static inline void readdress_four(struct iphdr *ip, const struct address *from, const struct address *to, __u8 ttl)
{
	__u16 *half = (void *)ip;
	__u32 sum = 0;

	ip->saddr = from->word[3];
	ip->daddr = to->word[3];
	ip->ttl = ttl;
	ip->check = 0;
#pragma unroll
	for (int at = 0; at < 10; at++)
		sum += half[at];
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	ip->check = ~sum;
}

static inline int send_on(struct __sk_buff *skb, struct packet *packet, int version, const struct address *to, int hop)
{
	__u8 ttl = hop ? HOP_TTL_SECOND : HOP_TTL_FIRST;
	long error;

	if (version == 4) {
		readdress_four(&packet->outer.four, &packet->me, to, ttl);
		error = store_bytes(skb, ETH_HLEN, &packet->outer.four, sizeof(struct iphdr), BPF_F_RECOMPUTE_CSUM);
	} else {
		copy((void *)&packet->outer.six.saddr, &packet->me);
		copy((void *)&packet->outer.six.daddr, to);
		packet->outer.six.hop_limit = ttl;
		error = store_bytes(skb, ETH_HLEN, &packet->outer.six, sizeof(struct ipv6hdr), BPF_F_RECOMPUTE_CSUM);
	}
	if (error)
		return stay(ODD);
	stay(hop ? FORWARDED_AGAIN : FORWARDED);
	return redirect_neigh(skb->ifindex, 0, 0, 0);
}

/* Whether the flow is at home here: a reason to stay, or less than 0. A listening socket alone is none. */
static inline int at_home(struct __sk_buff *skb, struct packet *packet, int version)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	int reason = SOCKET;

	if (version == 4) {
		tuple.ipv4.saddr = packet->client.word[3];
		tuple.ipv4.daddr = packet->endpoint.vip.word[3];
		tuple.ipv4.sport = packet->client_port;
		tuple.ipv4.dport = packet->endpoint.port;
		socket = find_socket(skb, &tuple, sizeof(tuple.ipv4), (__u64)BPF_F_CURRENT_NETNS, 0);
	} else {
		copy((void *)tuple.ipv6.saddr, &packet->client);
		copy((void *)tuple.ipv6.daddr, &packet->endpoint.vip);
		tuple.ipv6.sport = packet->client_port;
		tuple.ipv6.dport = packet->endpoint.port;
		socket = find_socket(skb, &tuple, sizeof(tuple.ipv6), (__u64)BPF_F_CURRENT_NETNS, 0);
	}
	if (!socket)
		return -1;
	if (socket->state == BPF_TCP_LISTEN) {
		__u32 size = version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

		reason = -1;
		if (!packet->is_error && !check_cookie(socket, &packet->inner, size, &packet->tcp, sizeof(packet->tcp)))
			reason = COOKIE;
	}
	release(socket);
	return reason;
}

static inline int decide(struct __sk_buff *skb, struct packet *packet, int version)
{
	__u32 *found = lookup(&endpoints, &packet->endpoint), group;
	struct address to;
	int reason, hop;
	void *rows;

	if (!found)
		return TC_ACT_UNSPEC;
	group = *found & (WITHOUT_PORT - 1);
	if (!packet->is_error && packet->tcp.syn)
		return stay(NEW);
	reason = at_home(skb, packet, version);
	if (reason >= 0)
		return stay(reason);
	hop = hops(packet);
	if (hop < 0)
		return stay(STRANGER);
	if (hop > 1)
		return stay(TWO_HOPS);
	rows = lookup(&groups, &group);
	if (!rows || !choose(rows, packet, version, !(*found & WITHOUT_PORT), &to))
		return stay(ALONE);
	return send_on(skb, packet, version, &to, hop);
}

/* The flow that an ICMP error is about: the packet in it came from the VIP. `at` is where the ICMP header stands. */
static inline int error_four(struct __sk_buff *skb, __u32 at, struct packet *packet)
{
	struct icmp icmp;
	struct iphdr about;
	__be16 ports[2];

	if (load_bytes(skb, at, &icmp, sizeof(icmp)))
		return 0;
	if (icmp.type != ICMP_UNREACHABLE && icmp.type != ICMP_TIME_EXCEEDED && icmp.type != ICMP_PARAMETER_PROBLEM)
		return 0;
	at += sizeof(icmp);
	if (load_bytes(skb, at, &about, sizeof(about)) || about.version != 4 || about.ihl < 5)
		return 0;
	if (about.protocol != IPPROTO_TCP || about.frag_off & BE16(0x1FFF))
		return 0;
	if (load_bytes(skb, at + about.ihl * 4, ports, sizeof(ports)) || about.saddr != packet->inner.four.daddr)
		return 0;
	map_four(&packet->endpoint.vip, about.saddr);
	map_four(&packet->client, about.daddr);
	packet->endpoint.port = ports[0];
	packet->client_port = ports[1];
	packet->is_error = 1;
	return 1;
}

static inline int error_six(struct __sk_buff *skb, __u32 at, struct packet *packet)
{
	struct icmp icmp;
	struct ipv6hdr about;
	__be16 ports[2];
	struct address vip;

	if (load_bytes(skb, at, &icmp, sizeof(icmp)))
		return 0;
	if (icmp.type < ICMPV6_UNREACHABLE || icmp.type > ICMPV6_PARAMETER_PROBLEM)
		return 0;
	at += sizeof(icmp);
	if (load_bytes(skb, at, &about, sizeof(about)) || about.version != 6 || about.nexthdr != IPPROTO_TCP)
		return 0;
	if (load_bytes(skb, at + sizeof(about), ports, sizeof(ports)))
		return 0;
	copy(&packet->endpoint.vip, &about.saddr);
	copy(&packet->client, &about.daddr);
	copy(&vip, &packet->inner.six.daddr);
	if (!same(&vip, &packet->endpoint.vip))
		return 0;
	packet->endpoint.port = ports[0];
	packet->client_port = ports[1];
	packet->is_error = 1;
	return 1;
}

static inline int four_in_four(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct iphdr *outer = &packet.outer.four, *inner = &packet.inner.four;
	__u32 at = ETH_HLEN + sizeof(struct iphdr), which = 0;
	struct address *own_address;
	struct address to;

	if (load_bytes(skb, ETH_HLEN, outer, sizeof(*outer)) || outer->protocol != IPPROTO_IPIP)
		return TC_ACT_UNSPEC;
	own_address = lookup(&own, &which);
	map_four(&to, outer->daddr);
	if (!own_address || !same(own_address, &to))
		return TC_ACT_UNSPEC;
	if (outer->version != 4 || outer->ihl != 5 || outer->frag_off & FRAGMENT)
		return stay(ODD);
	if (load_bytes(skb, at, inner, sizeof(*inner)) || inner->version != 4 || inner->ihl < 5)
		return stay(ODD);
	if (inner->frag_off & FRAGMENT)
		return stay(ODD);
	copy(&packet.me, own_address);
	map_four(&packet.sender, outer->saddr);
	packet.ttl = outer->ttl;
	at += inner->ihl * 4;
	if (inner->protocol == IPPROTO_ICMP) {
		if (!error_four(skb, at, &packet))
			return TC_ACT_UNSPEC;
	} else if (inner->protocol == IPPROTO_TCP) {
		if (load_bytes(skb, at, &packet.tcp, sizeof(packet.tcp)) || packet.tcp.doff < 5)
			return stay(ODD);
		map_four(&packet.endpoint.vip, inner->daddr);
		map_four(&packet.client, inner->saddr);
		packet.endpoint.port = packet.tcp.dest;
		packet.client_port = packet.tcp.source;
	} else {
		return TC_ACT_UNSPEC;
	}
	return decide(skb, &packet, 4);
}

static inline int six_in_six(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct ipv6hdr *outer = &packet.outer.six, *inner = &packet.inner.six;
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr), which = 1;
	struct address *own_address;
	struct address to;

	if (load_bytes(skb, ETH_HLEN, outer, sizeof(*outer)) || outer->nexthdr != IPPROTO_IPV6)
		return TC_ACT_UNSPEC;
	own_address = lookup(&own, &which);
	copy(&to, &outer->daddr);
	if (!own_address || !same(own_address, &to))
		return TC_ACT_UNSPEC;
	if (outer->version != 6 || load_bytes(skb, at, inner, sizeof(*inner)) || inner->version != 6)
		return stay(ODD);
	copy(&packet.me, own_address);
	copy(&packet.sender, &outer->saddr);
	packet.ttl = outer->hop_limit;
	at += sizeof(*inner);
	if (inner->nexthdr == IPPROTO_ICMPV6) {
		if (!error_six(skb, at, &packet))
			return TC_ACT_UNSPEC;
	} else if (inner->nexthdr == IPPROTO_TCP) {
		if (load_bytes(skb, at, &packet.tcp, sizeof(packet.tcp)) || packet.tcp.doff < 5)
			return stay(ODD);
		copy(&packet.endpoint.vip, &inner->daddr);
		copy(&packet.client, &inner->saddr);
		packet.endpoint.port = packet.tcp.dest;
		packet.client_port = packet.tcp.source;
	} else {
		return TC_ACT_UNSPEC;
	}
	return decide(skb, &packet, 6);
}

SECTION("classifier")
int second_chance(struct __sk_buff *skb)
{
	if (skb->protocol == BE16(ETH_P_IP))
		return four_in_four(skb);
	if (skb->protocol == BE16(ETH_P_IPV6))
		return six_in_six(skb);
	return TC_ACT_UNSPEC;
}
