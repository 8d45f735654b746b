"""Luftdruck der Warte: von der Ablesung am Quecksilber zum Wert auf Meereshöhe.

Das Stationsbarometer (Fuess Nr. 2261, seit 1908 im Keller) zeigt eine Länge, keinen Druck. Bevor
die Zahl in die Meldung darf, werden vier Berichtigungen angebracht, immer in dieser Reihenfolge:

1. Standfehler des Instruments, zuletzt 1987 in Hamburg zu +0,08 hPa bestimmt;
2. Temperatur: Quecksilber und Messingskala dehnen sich verschieden aus;
3. Schwere: auf 49° 40' Nord ist sie etwas größer als auf der Normalbreite von 45 Grad;
4. Höhe: das Gefäß liegt 37,2 Meter über dem Meer.

Vor jeder Ablesung klopft man zweimal leicht mit dem Fingernagel an das Rohr, damit sich die Kuppe
rundet. Wer mit dem Knöchel klopft, kauft das nächste.
"""

from math import exp

STANDFEHLER_HPA = 0.08
"""Wird zur Ablesung addiert."""
HOEHE_M = 37.2
"""Höhe des Gefäßes über dem mittleren Meeresspiegel, nicht über dem Nullpunkt der Seekarte."""
SCHWERE_ORT = 9.81047
SCHWERE_NORMAL = 9.80665


def auf_null_grad(ablesung_hpa: float, grad_c: float) -> float:
    """Rechnet auf 0 °C um.

    Der Keller hat selten weniger als acht und nie mehr als siebzehn Grad. Liegt die Angabe
    außerhalb, wurde fast immer das falsche Thermometer abgelesen, nämlich das am Heizungsrohr;
    deshalb wird sie abgelehnt und nicht etwa gerundet.
    """
    if not 5.0 <= grad_c <= 20.0:
        raise ValueError(
            f"{grad_c} °C im Keller ist unglaubwürdig; bitte am Barometer selbst ablesen"
        )
    return ablesung_hpa * (1.0 - 0.000163 * grad_c)


def auf_meereshoehe(druck_hpa: float, luft_c: float) -> float:
    """Erhöht den Druck um das Gewicht der Luftsäule zwischen Gefäß und Meer.

    Als Temperatur der Säule gilt das Mittel aus jetzt und vor zwölf Stunden, nicht der
    augenblickliche Wert: An windstillen Wintermorgen liegt die Kälte nur als dünne Schicht auf
    dem Kap, und die Rechnung geriete um bis zu drei Zehntel zu hoch.
    """
    return druck_hpa * exp(0.0341632 * HOEHE_M / (luft_c + 273.15))


def meldung(ablesung_hpa: float, keller_c: float, luft_c: float) -> float:
    """Gibt den Druck auf Meereshöhe, gerundet auf ein Zehntel Hektopascal, zurück."""
    druck = auf_null_grad(ablesung_hpa + STANDFEHLER_HPA, keller_c)
    druck *= SCHWERE_ORT / SCHWERE_NORMAL
    return round(auf_meereshoehe(druck, luft_c), 1)


TIEFSTER_WERT_HPA = 938.4
"""Gemessen am 9. Februar 1988 um 6 Uhr; das Haus hat hörbar geknarrt."""
