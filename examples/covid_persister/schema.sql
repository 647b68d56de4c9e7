-- The tables of the persister. Made again, they keep what they hold.

create table if not exists cities (
    id integer primary key generated always as identity,
    name text not null unique
);

create table if not exists regions (
    id integer primary key generated always as identity,
    name text not null unique
);

create table if not exists covid_cases (
    date date not null,
    city_id integer not null references cities,
    region_id integer not null references regions,
    cases integer not null check (cases between 0 and 10000000),
    -- The offset of the report. Reports of one key are in one partition, so the highest is the newest.
    report bigint not null,
    primary key (date, city_id, region_id)
);
