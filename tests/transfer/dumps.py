"""Small databases of other relays, in the schemas that they have."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

FRIDAY = 1_775_822_400  # 2026-04-10 12:00:00 UTC
NEW_KEY = "n" * 48
OLD_KEY = "o" * 48

# As GORM creates it from model/user.go, token.go, channel.go and option.go; fewer columns.
NEW_API = f"""
CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT,`username` text,
  `password` text NOT NULL,`display_name` text,`role` int DEFAULT 1,`status` int DEFAULT 1,
  `email` text,`access_token` char(32),`quota` int DEFAULT 0,`used_quota` int DEFAULT 0,
  `group` varchar(64) DEFAULT "default",`deleted_at` datetime,`created_at` bigint);
CREATE TABLE `tokens` (`id` integer PRIMARY KEY AUTOINCREMENT,`user_id` integer,`key` char(48),
  `status` integer DEFAULT 1,`name` text,`created_time` bigint,`accessed_time` bigint,
  `expired_time` bigint DEFAULT -1,`remain_quota` integer DEFAULT 0,`unlimited_quota` numeric,
  `model_limits_enabled` numeric,`model_limits` varchar(1024) DEFAULT "",
  `allow_ips` text DEFAULT "",`used_quota` integer DEFAULT 0,`group` text DEFAULT "",
  `deleted_at` datetime);
CREATE TABLE `channels` (`id` integer PRIMARY KEY AUTOINCREMENT,`type` integer DEFAULT 0,
  `key` text NOT NULL,`status` integer DEFAULT 1,`name` text,`weight` integer DEFAULT 0,
  `base_url` text DEFAULT "",`models` text,`group` varchar(64) DEFAULT "default",
  `model_mapping` text,`priority` bigint DEFAULT 0);
CREATE TABLE `options` (`key` text,`value` text,PRIMARY KEY (`key`));
INSERT INTO options VALUES ('QuotaPerUnit','1000000'),('SystemName','It''s (mine), "here";');
INSERT INTO users VALUES
  (1,'root','$2a$10$x','Root',100,1,'root@example.com','t',25000000,0,'pro',NULL,{FRIDAY}),
  (2,'ann','$2a$10$x','Ann; it''s
INSERT INTO users VALUES (9,''x'')',1,2,'',NULL,0,7,'default',NULL,NULL),
  (3,'gone','$2a$10$x','',1,1,'gone@example.com',NULL,5,0,'default','2026-04-01 00:00:00',NULL),
  (4,'twin','$2a$10$x','',1,1,'ROOT@example.com',NULL,5,0,'default',NULL,NULL);
INSERT INTO tokens VALUES
  (1,1,'{NEW_KEY}',1,'laptop',{FRIDAY},0,-1,0,1,0,'','',0,'',NULL),
  (2,1,'{"m" * 48}',1,'one model',{FRIDAY},0,-1,0,1,1,'claude-opus-4','',0,'',NULL),
  (3,1,'{"i" * 48}',1,'office',{FRIDAY},0,-1,0,1,0,'','10.0.0.0/8',0,'',NULL),
  (4,1,'{"q" * 48}',1,'quota',{FRIDAY},0,-1,2500000,0,0,'','',0,'',NULL),
  (5,1,'{"d" * 48}',2,'disabled',{FRIDAY},0,-1,0,1,0,'','',0,'',NULL),
  (6,1,'{"e" * 48}',1,'expired',{FRIDAY},0,{FRIDAY + 60},0,1,0,'','',0,'',NULL),
  (7,2,'{OLD_KEY}',1,'ann''s',{FRIDAY},0,{FRIDAY + 10**9},0,1,0,'','',0,'',NULL),
  (8,77,'{"z" * 48}',1,'nobody''s',{FRIDAY},0,-1,0,1,0,'','',0,'',NULL);
INSERT INTO channels VALUES
  (1,14,'sk-ant-1
sk-ant-2',1,'Claude main',3,'','claude-opus-4','default',NULL,10),
  (2,14,'sk-ant-3',1,'Claude main',0,'https://mirror.example/v1','','default',NULL,0),
  (3,1,'sk-openai',1,'OpenAI',0,'','gpt-5','default',NULL,0),
  (4,14,'sk-ant-4',3,'banned',0,'','','default',NULL,0);
"""

ONE_API = f"""
CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT,`username` text,
  `password` text NOT NULL,`role` int DEFAULT 1,`status` int DEFAULT 1,`email` text,
  `quota` int DEFAULT 0,`group` varchar(32) DEFAULT "default");
CREATE TABLE `tokens` (`id` integer PRIMARY KEY AUTOINCREMENT,`user_id` integer,`key` char(48),
  `status` integer DEFAULT 1,`name` text,`created_time` bigint,`accessed_time` bigint,
  `expired_time` bigint DEFAULT -1,`remain_quota` bigint DEFAULT 0,
  `unlimited_quota` numeric DEFAULT false);
INSERT INTO users VALUES (1,'root','x',100,1,'root@example.com',1000000,'default');
INSERT INTO tokens VALUES (1,1,'{OLD_KEY}',1,'all',{FRIDAY},0,-1,0,1);
"""

# pg_dump of sub2api: backend/ent/schema/user.go, api_key.go, account.go and group.go.
SUB2API = r"""--
-- PostgreSQL database dump
--
SET standard_conforming_strings = on;
CREATE TABLE public.users (
    id bigint NOT NULL,
    email character varying(255) NOT NULL
);
COPY public.groups (id, name, platform) FROM stdin;
1	pro	anthropic
2	default	anthropic
\.

COPY public.accounts (id, name, platform, type, credentials, extra, concurrency, priority, status, deleted_at) FROM stdin;
1	Main key	anthropic	apikey	{"api_key": "sk-ant-s", "base_url": "https://api.anthropic.com"}	{}	5	50	active	\N
2	Max plan	anthropic	oauth	{"access_token": "x"}	{}	3	50	active	\N
3	Gemini	gemini	apikey	{"api_key": "g"}	{}	3	50	active	\N
\.

COPY public.api_keys (id, user_id, key, name, group_id, status, created_at, deleted_at, ip_whitelist, quota, quota_used, expires_at) FROM stdin;
1	7	sk-subkey-1	tab\tand \\ backslash	1	active	2026-04-01 08:00:00+00	\N	\N	0.00000000	0.00000000	\N
2	7	sk-subkey-2	limited	1	active	2026-04-01 08:00:00+00	\N	["10.0.0.1"]	5.00000000	1.25000000	\N
3	7	sk-subkey-3	later	1	active	2026-04-01 08:00:00+00	\N	\N	0	0	2036-01-01 00:00:00+02
4	7	sk-subkey-4	off	1	disabled	2026-04-01 08:00:00+00	\N	\N	0	0	\N
\.

COPY public.users (id, email, password_hash, role, balance, concurrency, status, created_at, deleted_at, username) FROM stdin;
7	bea@example.com	$2a$10$x	user	12.34567800	5	active	2026-03-01 00:00:00+00	\N	bea
8	off@example.com	$2a$10$x	admin	0.00000000	5	disabled	2026-03-01 00:00:00+00	\N	off
\.
"""  # noqa: E501


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


# pg_dump of LiteLLM: schema.prisma.
LITELLM = f"""
COPY public."LiteLLM_UserTable" (user_id, user_alias, user_email, user_role, max_budget, spend, models, created_at) FROM stdin;
u-1	\\N	cyd@example.com	proxy_admin	100	37.5	{{}}	2026-03-01 00:00:00
default_user_id	\\N	\\N	proxy_admin	\\N	0	{{}}	\\N
dan@example.com	\\N	\\N	internal_user	\\N	3	{{}}	\\N
\\.
COPY public."LiteLLM_VerificationToken" (token, key_name, key_alias, spend, expires, models, user_id, team_id, blocked, max_budget, rpm_limit) FROM stdin;
{digest("sk-lite-1")}	sk-...te-1	ci	0	\\N	{{}}	u-1	\\N	\\N	\\N	\\N
{digest("sk-lite-2")}	sk-...te-2	\\N	0	2036-01-01 00:00:00	{{all-team-models}}	dan@example.com	\\N	f	\\N	\\N
{digest("sk-lite-3")}	sk-...te-3	models	0	\\N	{{gpt-5}}	u-1	\\N	\\N	\\N	\\N
{digest("sk-lite-4")}	sk-...te-4	slow	0	\\N	{{}}	u-1	\\N	\\N	5	100
{digest("sk-lite-5")}	sk-...te-5	blocked	0	\\N	{{}}	u-1	\\N	t	\\N	\\N
{digest("sk-lite-6")}	sk-...te-6	team	0	\\N	{{}}	\\N	team-1	\\N	\\N	\\N
sk-lite-plain	\\N	plain	0	\\N	{{}}	u-1	\\N	\\N	\\N	\\N
\\.
COPY public."LiteLLM_ProxyModelTable" (model_id, model_name, litellm_params) FROM stdin;
m-1	claude	{{"model": "enc", "api_key": "enc"}}
\\.
"""  # noqa: E501


def sqlite_file(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path
