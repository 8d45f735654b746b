"""Abbreviations after whose full stop a sentence goes on, of many languages together.

From the sentence break suppressions of Unicode CLDR 45 (en, de, fr, es, it, pt, ru) without those
that are ordinary words too, with additions for Dutch, Swedish, Danish, Polish, Czech, Greek and
Ukrainian. In lower case, without the last full stop and without spaces.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Forms of address and titles, before a name; then what is before a reference, a name or an example;
# then abbreviations of several parts.
ALWAYS = words("""
mr mrs ms mx dr drs prof profs messrs mmes mme mlle mlles ste sra srta sres dña lt
sgt cpl capt cmdr adm maj gov sen hon rev msgr pres supt insp hr hrn frl fa gebr dipl ing univ stud
cand hrsg dott ssa sigg avv geom lic excmo excma ilmo ilma rvdo profa exmo exma dhr mevr mgr inż
rndr mudr judr phdr κ гр ул пл просп пер бул наб корп кв обл пгт им акад проф доц тов вул смт
figs eq eqs chap vol vols pp eds cf cfr bd bde abb kap abschn anm vgl bzw sog ggf evtl bzgl ca inkl
exkl insb mind approx vs viz esp incl resp dept núm pág págs párr arts sgtes cit ibid loc jhdt frz
engl griech österr röm kath geb gest verh gesch env fasc éd réf hôp boul bld рис табл гл ср
напр см тыс bkz obr tzw np nr nrs zob por poz phil jur rer párrf bijv blz enz zgn dvs osv al
e.g i.e z.b d.h u.a u.u z.t v.a i.d.r o.g s.o s.u m.e i.a p.ex c.-à-d p.ej v.gr t.ex s.k f.eks bl.a
av m.a.w d.w.z t.a.v m.in n.chr v.chr j.-c т.е т.к т.н т.д
""")
"""The sentence goes on whatever follows."""

BEFORE_NUMBERS = words("""
no nos n num fig sec secs s p pg ch art str tel ext ref tab cap pl § ст п ч т д
jan feb febr mar mär apr jun jul aug sept sep oct okt nov dec dez déc janv févr avr juil ene abr
ago dic янв февр апр авг сент окт нояб дек
""")
"""The sentence goes on if a number follows."""

MAYBE = words("inc co corp ltd jr sr bros mt ed rep sig mag doc st mm col gen lat med nat")
"""The sentence goes on, unless a word follows that usually begins one, or it is a unit: `30 mm`."""

OPENERS = words("""
the this that these those he she it we they i you in on at for but and if when while as after a an
there his her its our their however although since then what who why how so now by from with to all
some many most because is are was do does did can will please before here yes
der die das ein eine er sie es wir ich im am bei für und aber wenn als nach auch
le la les un une il elle nous ce cette en dans et mais el los las una y pero este
lo gli e ma nel nella o os um uma mas em na
в на и но он она это по для как
""")
"""Words that begin a sentence far more often than they follow an abbreviation within one."""
