-- SPDX-License-Identifier: Apache-2.0
-- min_reader: 1
-- kind: expand
--
-- "Can we still take gold today?" in SQL, next to `slots`: a row for each class with how many
-- minutes of resolvers are open to booking within its level, how many of them are free, and the
-- first free one. None free does not mean that nothing is accepted: the ledger may still rebook. As
-- in `slots`, holds are not seen. The last minute counts only if it ends within the level.
create view capacity as
select c.name as class, c.level_minutes, count(s.time) as minutes,
    count(s.time) filter (where s.available = 'available') as free,
    min(s.time) filter (where s.available = 'available') as first_free
from classes c
    left join slots s on s.time <= now() + make_interval(mins => c.level_minutes - 1)
group by c.name, c.level_minutes
order by c.level_minutes, c.name;

revoke all on capacity from public;
grant select on capacity to docket_tenant;
